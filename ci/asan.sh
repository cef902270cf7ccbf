#!/usr/bin/env bash
# Runs the tests under AddressSanitizer, on the nightly toolchain. On demand, like kernel-debug.sh;
# .ci/run does not call it.
#     ci/asan.sh                 all test programs that can run
#     ci/asan.sh managed stress  these
#
# AddressSanitizer and managed calls both define functions of libc in the program. Its definitions
# are weak (`nm` prints W), so the managed ones (T) win, without a conflict. Those look their next
# definition up behind the program, by `RTLD_NEXT`, and find libc's. So:
#   * Managed calls work as without AddressSanitizer.
#   * A buffer that a managed function passes to libc is not checked there. All other accesses
#     of Rust code, all allocations and the functions that are not managed are.
#   * AddressSanitizer does not learn of threads, because `pthread_create` is managed. It aborts
#     the program when such a thread is detached or tried to be joined, so the programs
#     concerned define these two functions as well (tests/tests/managed/asan.rs).
#   * It cannot tell what such a thread holds from a leak. Leaks are therefore not looked for.
source "$(dirname -- "${BASH_SOURCE[0]}")/prelude.sh"

cargo +nightly --version >/dev/null || { echo "this needs a nightly toolchain" >&2 && exit 1; }
machine=$(rustc +nightly -vV | sed -n 's/^host: //p')
export CARGO_TARGET_DIR=$target/asan RUST_BACKTRACE=1
# The flags with --target, so that build scripts and procedural macros go without them.
export RUSTFLAGS="-Zsanitizer=address -Cforce-frame-pointers=yes"
export ASAN_OPTIONS=detect_leaks=0${ASAN_OPTIONS:+:$ASAN_OPTIONS}
export UMCG_STRESS_SECONDS=${UMCG_STRESS_SECONDS:-10}

# The tests that cannot run, and why. Neither can the program faults_thread_creation: it has a
# `pthread_create` of its own, and AddressSanitizer aborts it at the first join.
cannot_run=(
    # A forked child of a program with threads makes calls that allocate. AddressSanitizer's
    # allocator has a lock for threads that it does not know; the child waits forever for the one
    # that another thread held at the fork.
    children::the_child_of_a_fork_in_a_worker_makes_all_calls
    # AddressSanitizer reads its options from /proc, which the test hides. It then looks for leaks,
    # which fails without /proc.
    without_proc_everything_works
    # Asserts how much memory a blocked task takes. AddressSanitizer takes more.
    ten_thousand_tasks_are_blocked_at_once
)
skips=()
for test in "${cannot_run[@]}"; do
    skips+=(--skip "$test")
done

programs=("$@")
if [[ ${#programs[@]} -eq 0 ]]; then
    programs=(
        managed managed_order managed_stress runtime stress
        conformance faults faults_allocator faults_limits
    )
fi
failed=()
for program in "${programs[@]}"; do
    say "$program, under AddressSanitizer"
    timeout 900 cargo +nightly test --quiet --target "$machine" -p umcg-tests --features asan \
        --test "$program" -- "${skips[@]}" || failed+=("$program")
done
if [[ ${#failed[@]} -gt 0 ]]; then
    printf 'FAILED: %s\n' "${failed[@]}" >&2
    exit 1
fi
