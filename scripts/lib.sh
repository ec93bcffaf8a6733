# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# What the scripts share: where the tree is, which Go and which Debian packages
# they need, and how a lacking one is installed. To be sourced.
#
# Exit codes are those of the binaries: 1 a check failed, 2 usage, 3 the machine
# lacks something.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

# Each line is a Debian package and what shows that it is there: a command, or a
# file by its path, which may have *.
# shellcheck disable=SC2034 # for whoever sources this
{
build_packages='
gcc              gcc
libc6-dev        /usr/include/stdlib.h
'
release_packages=$build_packages'
gcc-aarch64-linux-gnu         aarch64-linux-gnu-gcc
gcc-mingw-w64-x86-64-win32    x86_64-w64-mingw32-gcc
libc6-dev-arm64-cross         /usr/aarch64-linux-gnu/include/stdlib.h
openssh-client                ssh-keygen
binutils                      readelf
zip                           zip
'
rehearse_packages=$build_packages'
softhsm2         softhsm2-util
'
test_packages=$rehearse_packages'
age              age
bsdutils         script
coreutils        sha256sum
jq               jq
opensc           pkcs11-tool
openssh-client   ssh-keygen
openssl          openssl
groff-base       groff
shellcheck       shellcheck
strace           strace
tar              tar
xxd              xxd
zsh              zsh
zstd             zstd
'
bench_packages=$test_packages'
libxml2-utils    xmllint
'
# File systems that the tests write to, as sticks have them.
media_packages='
dosfstools       mkfs.vfat
e2fsprogs        mkfs.ext4
exfat-fuse       mount.exfat-fuse
exfatprogs       mkfs.exfat
fusefat          fusefat
'
# A browser that prints the run sheets, and what reads them again.
paper_packages='
chromium         chromium
poppler-utils    pdftotext
'
# Tokens that the tests try beside SoftHSM. Not every release has them all.
token_packages='
dbus-daemon              dbus-run-session
libnss3                  /usr/lib/*/libsoftokn3.so
libnss3-tools            certutil
libtpm2-pkcs11-1         /usr/lib/*/pkcs11/libtpm2_pkcs11.so
libtpm2-pkcs11-tools     tpm2_ptool
libtss2-tcti-swtpm0      /usr/lib/*/libtss2-tcti-swtpm.so.0
libtss2-tcti-tabrmd0     /usr/lib/*/libtss2-tcti-tabrmd.so.0
opencryptoki             /usr/sbin/pkcsslotd
p11-kit                  p11-kit
p11-kit-modules          /usr/lib/*/p11-kit-proxy.so
swtpm                    swtpm
tpm2-abrmd               tpm2-abrmd
tpm2-tools               tpm2_getrandom
yubihsm-pkcs11           /usr/lib/*/pkcs11/yubihsm_pkcs11.so
'
# A real PowerShell, which runs what is for Windows PowerShell. Debian has none.
powershell_packages='
powershell       pwsh
'
# What starts the Windows binaries in tests, some 100 MB, and builds a SoftHSM for it.
windows_packages='
wine64                        /usr/lib/wine/wine64
g++-mingw-w64-x86-64-win32    x86_64-w64-mingw32-g++
'
}

say() { printf '%s\n' "$*"; }

# stop CODE SENTENCE ends the script.
stop() {
    local code=$1
    shift
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit "$code"
}

# lacking PACKAGES prints those that are not there.
lacking() {
    local package probe
    while read -r package probe; do
        case $probe in
        '') ;;
        /*) compgen -G "$probe" >/dev/null || say "$package" ;;
        *) command -v "$probe" >/dev/null || say "$package" ;;
        esac
    done <<<"$1"
}

# as_root COMMAND... runs it as root, if that may be had without asking.
as_root() {
    if [[ $(id -u) -eq 0 ]]; then "$@"; else sudo -n "$@"; fi
}

# install NAMES... installs Debian packages and reports whether it could.
install() {
    say "Installing $*"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" </dev/null >/dev/null
}

# need PACKAGES installs those that are not there, or stops.
need() {
    local names
    mapfile -t names < <(lacking "$1")
    [[ ${#names[@]} -gt 0 ]] || return 0

    local by_hand="apt-get install --no-install-recommends ${names[*]}"
    command -v apt-get >/dev/null || stop 3 "this machine has no apt-get: install what corresponds to Debian's packages ${names[*]}, then run this again"
    as_root true 2>/dev/null || stop 3 "as root, run '$by_hand', then run this again"
    # A list that can't be updated may still do: what counts is the install.
    as_root apt-get -qq update || true
    install "${names[@]}" || stop 3 "the install failed: as root, run '$by_hand', then run this again"
}

# want PACKAGES installs those that are not there and can be had, by their name
# or with t64 behind it, and says what can't: their tests say that they skip.
want() {
    local package name names found=()
    mapfile -t names < <(lacking "$1")
    [[ ${#names[@]} -gt 0 ]] || return 0

    if ! command -v apt-get >/dev/null || ! as_root true 2>/dev/null; then
        say "Going on without ${names[*]}: packages can't be installed here"
        return 0
    fi
    as_root apt-get -qq update || true
    for package in "${names[@]}"; do
        for name in "$package" "${package}t64"; do
            [[ -n $(apt-cache show "$name" 2>/dev/null) ]] || continue
            found+=("$name")
            continue 2
        done
        say "Going on without $package: no such package is offered here"
    done
    [[ ${#found[@]} -eq 0 ]] || install "${found[@]}" || say "Going on without ${found[*]}: the install failed"
}

# need_go finds Go where its installer puts it, too, and checks its version. A Go
# of 1.21 or later fetches the one that go.mod names by itself. That one is then run,
# and not by way of the older: Go 1.24 crashes at a GOEXPERIMENT that it does not know.
need_go() {
    command -v go >/dev/null || PATH=$PATH:/usr/local/go/bin
    local said version='no Go'
    if command -v go >/dev/null; then
        version=$(cd / && GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) || version='another Go'
        said=$(cd "$root" && go env GOVERSION 2>&1) && version=$said && PATH=$(cd "$root" && go env GOROOT)/bin:$PATH
        [[ $said == go1.* || $said != *download* ]] ||
            stop 3 "Go 1.26 or later is needed, and $version is here, which could not fetch it: ${said##*$'\n'}"
    fi
    [[ $version =~ ^go1\.([0-9]+) && ${BASH_REMATCH[1]} -ge 26 ]] ||
        stop 3 "Go 1.26 or later is needed, and $version is here: install it from https://go.dev/dl/, then run this again"
}

# Go's own stamp needs a repository that git will read, which another user's is
# not: the version is stamped by scripts/build, if there is one.
export GOFLAGS="${GOFLAGS:-} -buildvcs=false"
version=${KEYFERRY_VERSION-$(git -C "$root" describe --always --dirty 2>/dev/null)} || version=''
