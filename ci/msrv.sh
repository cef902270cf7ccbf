#!/usr/bin/env bash
# The libraries build with the oldest Rust that they promise (rust-version in Cargo.toml).
#
# The toolchain comes from rustup if it has that version, else from Debian 12, whose packages
# rustc-web are of it. Those are unpacked below target/ and not installed: they would conflict
# with another Rust on the machine. Only the compiler is the old one, cargo is today's.
source "$(dirname -- "${BASH_SOURCE[0]}")/prelude.sh"

version=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
say "Rust $version"

from_rustup() {
    command -v rustup >/dev/null || return 1
    local toolchain
    toolchain=$(rustup toolchain list | grep -o "^${version}[^ ]*" | head -n 1) || return 1
    compiler=$(rustup which --toolchain "$toolchain" rustc)
}

from_debian() {
    [[ $(uname -m) == x86_64 ]] && command -v apt-get >/dev/null || return 1
    local unpacked=$target/rust-$version package
    compiler=$unpacked/rustc
    [[ -x $compiler ]] && return
    # Newer versions of the same packages may be there too; the one that we want has the number.
    package=$(apt-cache madison rustc-web | awk -v v="$version." 'index($3, v) == 1 { print $3; exit }')
    if [[ -z $package && $EUID == 0 ]]; then
        apt-get -qq update
        package=$(apt-cache madison rustc-web |
            awk -v v="$version." 'index($3, v) == 1 { print $3; exit }')
    fi
    [[ -n $package ]] || return 1
    rm -rf "$unpacked"
    mkdir -p "$unpacked"
    (
        cd "$unpacked"
        # A folder that only root may enter: apt says so and downloads all the same.
        apt-get -qq download "rustc-web=$package" "libstd-rust-web-dev=$package" \
            "libstd-rust-web-$version=$package" libllvm19 2>/dev/null || exit 1
        for archive in *.deb; do
            dpkg-deb -x "$archive" root
        done
        rm ./*.deb
        cat >rustc.new <<EOF
#!/bin/sh
LD_LIBRARY_PATH="$unpacked/root/usr/lib/x86_64-linux-gnu:$unpacked/root/usr/lib" \\
    exec "$unpacked/root/usr/bin/rustc" "\$@"
EOF
        chmod +x rustc.new
        ./rustc.new --version
        mv rustc.new rustc
    )
}

if ! from_rustup && ! from_debian; then
    not_checked "that the libraries build with Rust $version: no such toolchain here"
    exit 0
fi
"$compiler" --version
# The clippy driver and wrappers of a newer Rust have no place around the old compiler.
env -u RUSTC_WRAPPER -u RUSTC_WORKSPACE_WRAPPER RUSTC="$compiler" \
    CARGO_TARGET_DIR="$target/msrv" \
    cargo check --quiet -p umcg -p umcg-sys -p umcg-macros --all-features
echo "umcg, umcg-sys and umcg-macros build with Rust $version"
