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
# file by its path.
# shellcheck disable=SC2034 # for whoever sources this
{
build_packages='
gcc              gcc
libc6-dev        /usr/include/stdlib.h
'
rehearse_packages=$build_packages'
softhsm2         softhsm2-util
'
test_packages=$rehearse_packages'
age              age
bsdutils         script
coreutils        sha256sum
opensc           pkcs11-tool
openssh-client   ssh-keygen
openssl          openssl
shellcheck       shellcheck
strace           strace
tar              tar
xxd              xxd
zstd             zstd
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

# need PACKAGES installs those that are not there, if it may.
need() {
    local package probe lacking=() sudo=()
    while read -r package probe; do
        case $probe in
        '') ;;
        /*) [[ -e $probe ]] || lacking+=("$package") ;;
        *) command -v "$probe" >/dev/null || lacking+=("$package") ;;
        esac
    done <<<"$1"
    [[ ${#lacking[@]} -gt 0 ]] || return 0

    local by_hand="apt-get install --no-install-recommends ${lacking[*]}"
    command -v apt-get >/dev/null || stop 3 "this machine has no apt-get: install what corresponds to Debian's packages ${lacking[*]}, then run this again"
    if [[ $(id -u) -ne 0 ]]; then
        sudo -n true 2>/dev/null || stop 3 "as root, run '$by_hand', then run this again"
        sudo=(sudo -n)
    fi
    say "Installing ${lacking[*]}"
    # A list that can't be updated may still do: what counts is the install.
    "${sudo[@]}" apt-get -qq update || true
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq install -y --no-install-recommends "${lacking[@]}" </dev/null >/dev/null ||
        stop 3 "the install failed: as root, run '$by_hand', then run this again"
}

# need_go finds Go where its installer puts it, too, and checks its version. A Go
# of 1.21 or later fetches the one that go.mod names by itself.
need_go() {
    command -v go >/dev/null || PATH=$PATH:/usr/local/go/bin
    local version
    version=$(cd "$root" && go env GOVERSION 2>/dev/null) || version="no Go"
    [[ $version =~ ^go1\.([0-9]+) && ${BASH_REMATCH[1]} -ge 26 ]] ||
        stop 3 "Go 1.26 or later is needed, and $version is here: install it from https://go.dev/dl/, then run this again"
}

# Go's own stamp needs a repository that git will read, which another user's is
# not: the version is stamped by scripts/build, if there is one.
export GOFLAGS="${GOFLAGS:-} -buildvcs=false"
version=$(git -C "$root" describe --always --dirty 2>/dev/null) || version=''
