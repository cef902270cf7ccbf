#!/usr/bin/env bash
# Builds the libraries with the oldest Rust that they support (rust-version in Cargo.toml).
#
# The compiler comes from rustup if it has that version. Otherwise it comes from the packages
# rustc-web of Debian 12, which are of that version. They are unpacked below target/ and not
# installed, because they would conflict with another Rust on the machine. cargo is the one that is
# installed.
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
    # The archive may have several versions of the package.
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
        # apt warns that its own user cannot enter this folder, and downloads as root then.
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
# Wrappers, such as the driver of clippy, are of a newer Rust and do not work with this compiler.
env -u RUSTC_WRAPPER -u RUSTC_WORKSPACE_WRAPPER RUSTC="$compiler" \
    CARGO_TARGET_DIR="$target/msrv" \
    cargo check --quiet -p umcg -p umcg-sys -p umcg-macros -p umcg-managed-calls --all-features
echo "The published crates build with Rust $version"
