// SPDX-License-Identifier: Apache-2.0

package scripttest

import (
	"archive/tar"
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"keyferry/bundle"
	"keyferry/pkg/sshsig"
)

// Redate is a bundle or receipt as the side with that state directory would have sealed
// it, had its clock said another time. Its signing key is in a file.
func Redate(sealed []byte, state string, created time.Time) ([]byte, error) {
	identity, err := os.ReadFile(filepath.Join(state, "identity", "sign.pem"))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(identity)
	if block == nil {
		return nil, errors.New("the identity is no PEM file")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	var manifest []byte
	w := tar.NewWriter(&out)
	for r := tar.NewReader(bytes.NewReader(sealed)); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			err = w.Close()
			return out.Bytes(), err
		}
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(r)
		switch {
		case err != nil:
		case header.Name == "manifest.json":
			manifest = regexp.MustCompile(`"created": "[^"]*"`).ReplaceAll(data, []byte(`"created": "`+created.UTC().Format(time.RFC3339)+`"`))
			data = manifest
		case strings.HasPrefix(header.Name, "signatures/"):
			data, err = sshsig.Sign(key.(crypto.Signer), bundle.Namespace, manifest)
		}
		if err != nil {
			return nil, err
		}
		header.Size = int64(len(data))
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := w.Write(data); err != nil {
			return nil, err
		}
	}
}
