#!/bin/sh
# Build the DPDK bindings, and test the ports on them, in a root of another Debian suite.
#
#   tests/dpdk-versions.sh [SUITE] [DIRECTORY]
#
# SUITE: default trixie (DPDK 24.11). DIRECTORY: where the root is kept between runs; default a
# temporary one that is removed. Needs root, mmdebstrap, and this machine's Rust toolchain, which
# is mounted into the root read-only. Mirror and keyring are those of this machine's apt. Cargo
# runs offline there: build once on the host first.
set -eu

suite=${1:-trixie}
root=${2:-}
here=$(cd "$(dirname "$0")/.." && pwd)
cargo_home=${CARGO_HOME:-$HOME/.cargo}
rustup_home=${RUSTUP_HOME:-$HOME/.rustup}
toolchain=$(cd "$here" && rustc --print sysroot)

fail() { echo "dpdk-versions: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "needs root"
command -v mmdebstrap >/dev/null || fail "apt-get install mmdebstrap"

# The first archive that apt knows with a Debian release of that name in it.
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Origin: Debian' |
    grep -v security | head -n 1)
[ -n "$mirror" ] || fail "apt knows no Debian archive (apt-get update?)"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] || fail "apt-get install debian-archive-keyring"

if [ -z "$root" ]; then
    root=$(mktemp -d)
    temporary=$root
fi
# Everything is mounted in a mount namespace of its own (below), so there is nothing to unmount.
cleanup() { [ -z "${temporary:-}" ] || rm -rf --one-file-system "$temporary"; }
trap cleanup EXIT
trap 'exit 1' INT TERM

if [ ! -e "$root/etc/debian_version" ]; then
    mmdebstrap --quiet --variant=apt --keyring="$keyring" \
        --include=libdpdk-dev,libclang-dev,pkg-config,gcc,libc6-dev,iproute2 \
        "$suite" "$root" "$mirror"
fi

mkdir -p "$root/src" "$root/target" "$root/cargo" "$root/toolchain"
export here root cargo_home rustup_home toolchain
unshare --mount --propagation private sh -eu <<'INSIDE'
mount --bind "$here" "$root/src"
mount -o remount,bind,ro "$root/src"
mount --bind "$cargo_home" "$root/cargo"
mount --bind "$toolchain" "$root/toolchain"
mount -o remount,bind,ro "$root/toolchain"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
chroot "$root" /usr/bin/env -i HOME=/root CARGO_HOME=/cargo CARGO_TARGET_DIR=/target \
    PATH=/toolchain/bin:/usr/sbin:/usr/bin:/sbin:/bin sh -eu <<'CHROOT'
cd /src
echo "DPDK $(pkg-config --modversion libdpdk) on $(sed -n 's/^PRETTY_NAME=//p' /etc/os-release)"
cargo test --offline --locked -p dpdk-sys
cargo test --offline --locked -p dunlin --test dpdk_port -- --include-ignored
CHROOT
INSIDE
