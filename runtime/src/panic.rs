//! Panics: those of application code are contained, those of the scheduler end the process.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::events;

/// Aborts the process if it is dropped by a panic. A scheduler that loses a thread in the middle of
/// a step would leave workers behind that nobody ever picks.
#[must_use = "guards the scope it is bound in"]
pub(crate) struct AbortIfPanic(
    /// What the guarded code does, for the message.
    pub(crate) &'static str,
);

impl AbortIfPanic {
    /// The guarded code has come to its end.
    pub(crate) fn disarm(self) {
        std::mem::forget(self);
    }
}

impl Drop for AbortIfPanic {
    fn drop(&mut self) {
        eprintln!(
            "umcg: {} panicked; this is a bug of the runtime, which cannot go on safely: aborting",
            self.0
        );
        std::process::abort();
    }
}

/// Runs application code whose panic nobody waits for. The panic hook has printed it, and an event
/// names the code; it goes no further.
pub(crate) fn contain(what: &'static str, f: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(f)) {
        discard(payload);
        events::contained_panic(what);
    }
}

/// Drops a value of the application. A panic of its destructor ends here.
pub(crate) fn discard<T>(value: T) {
    let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) else {
        return;
    };
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        // The destructor of the payload panicked as well, and that of the new payload could do the
        // same without end.
        std::mem::forget(payload);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        env,
        os::unix::process::ExitStatusExt,
        process::{Command, Stdio},
    };

    use super::AbortIfPanic;

    const CHILD: &str = "UMCG_ABORTS_IN_THIS_PROCESS";

    /// This test again, in a process of its own that ends as `how` says.
    fn child(how: &str) -> std::process::Output {
        let name = std::thread::current().name().map(str::to_owned).unwrap();
        Command::new(env::current_exe().unwrap())
            .args(["--exact", &name, "--nocapture", "--test-threads", "1"])
            .env(CHILD, how)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    #[test]
    fn a_panic_of_ours_ends_the_process_and_says_where_it_was() {
        match env::var(CHILD).as_deref() {
            Ok("panic") => {
                // Caught by the test harness, if nothing ended the process before.
                let _guard = AbortIfPanic("the loop of this test");
                panic!("in the middle of a step");
            }
            Ok("disarm") => {
                AbortIfPanic("the loop of this test").disarm();
                panic!("after the last step");
            }
            _ => {}
        }
        let ended = child("panic");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.signal(), Some(libc::SIGABRT), "{said}");
        assert!(said.contains("in the middle of a step"), "{said}");
        assert!(
            said.contains("umcg: the loop of this test panicked; this is a bug of the runtime"),
            "{said}"
        );
        // What the guarded code was done with is a test that fails, and no more.
        let ended = child("disarm");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.signal(), None, "{said}");
        assert!(!said.contains("bug of the runtime"), "{said}");
    }
}
