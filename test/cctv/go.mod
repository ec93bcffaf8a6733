module keyferry/cctv

go 1.26.4

require (
	c2sp.org/CCTV/age v0.0.0-20260829155415-4448f2097b2d
	filippo.io/age v1.3.2
	keyferry v0.0.0
)

require (
	filippo.io/hpke v0.4.0 // indirect
	github.com/klauspost/compress v1.20.3 // indirect
	github.com/tink-crypto/tink-go/v2 v2.9.0 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/term v0.47.0 // indirect
)

replace keyferry => ../../
