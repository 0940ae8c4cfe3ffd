#!/bin/sh
# rustc for builds that are the same bytes in whatever folder they are made: cargo calls it as RUSTC_WRAPPER. Flags would not do,
# since the build of the eBPF programs sets its own, and since cargo makes them part of what it names crates by.
set -- "$@" --remap-path-prefix="$PORTGUARD_ROOT=/portguard" --remap-path-prefix="$PORTGUARD_CARGO_HOME=/cargo"
case " $* " in
*" --target $PORTGUARD_CROSS "*) set -- "$@" --sysroot="$PORTGUARD_SYSROOT" ;;
esac
exec "$@"
