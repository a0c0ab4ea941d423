#!/bin/sh
# cargo as napi calls it in a release build: `build` becomes a build of the shared library alone. Cargo leaves out
# link-time optimisation where a crate is a Rust library too (rust-lang/cargo#4611), which tests and fuzzing need.
# Inlining of LLVM's usual 225 instructions would make it 0.9 MB larger, and 5 % faster where every byte counts.
less="-C llvm-args=-inline-threshold=60 -C llvm-args=-inlinehint-threshold=60"
# LLD, which Rust links with on this platform, lets functions of the same code be one: 0.1 MB.
fold=
case " $* " in *" x86_64-unknown-linux-gnu "*) fold="-C link-arg=-Wl,--icf=all" ;; esac
case $1 in
build) shift && exec cargo rustc --lib --crate-type cdylib "$@" -- $less $fold ;;
zigbuild) shift && exec cargo-zigbuild rustc --lib --crate-type cdylib "$@" -- $less ;;
*) exec cargo "$@" ;;
esac
