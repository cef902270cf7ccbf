//! The output at the end of a run.

use std::{
    fmt::{self, Display, Formatter},
    path::Path,
    sync::atomic::Ordering,
    time::Duration,
};

use indicatif::{HumanBytes, HumanCount};
use umcg::RuntimeMetrics;

use crate::job::{Failures, Job};

/// A run that has ended.
pub(crate) struct Summary<'a> {
    pub(crate) path: &'a Path,
    pub(crate) job: &'a Job,
    pub(crate) took: Duration,
    pub(crate) metrics: RuntimeMetrics,
}

impl Summary<'_> {
    /// Whether the digest covers every entry that was found. A task that panicked counts neither as
    /// hashed nor as failed.
    pub(crate) fn complete(&self) -> bool {
        self.job.failures().total == 0
            && self.job.hashed.load(Ordering::Relaxed) == self.job.found.load(Ordering::Relaxed)
    }
}

impl Display for Summary<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let files = self.job.hashed.load(Ordering::Relaxed);
        let bytes = self.job.bytes.load(Ordering::Relaxed);
        let seconds = self.took.as_secs_f64();
        writeln!(f, "{}  {}", self.job.digest(), self.path.display())?;
        writeln!(
            f,
            "{} files in {} directories, {} in {seconds:.2} s: {} files/s, {}/s",
            HumanCount(files),
            HumanCount(self.job.directories.load(Ordering::Relaxed)),
            HumanBytes(bytes),
            HumanCount((files as f64 / seconds) as u64),
            HumanBytes((bytes as f64 / seconds) as u64),
        )?;
        let metrics = &self.metrics;
        writeln!(
            f,
            "{} servers, at most {} workers; blocks reported: {} by the kernel, {} by the \
             sentinels, {} by siblings, {} by the monitor; the longest took {:.1?}",
            metrics.servers().len(),
            metrics.workers_peak(),
            HumanCount(metrics.provider().blocks_kernel),
            HumanCount(metrics.provider().blocks_sentinel),
            HumanCount(metrics.provider().blocks_sibling),
            HumanCount(metrics.provider().blocks_monitor),
            metrics.longest_block(),
        )?;
        writeln!(
            f,
            "provider: {} ({}): {}",
            metrics.provider_kind(),
            metrics.provider_why(),
            metrics.provider_description()
        )
    }
}

/// Prints nothing if everything was hashed.
impl Display for Failures {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.total == 0 {
            return Ok(());
        }
        for (path, error) in &self.first {
            writeln!(f, "not hashed: {path:?}: {error}")?;
        }
        write!(f, "not hashed: {}", HumanCount(self.total))?;
        let mut sign = ':';
        for (reason, count) in &self.reasons {
            write!(f, "{sign} {} {reason}", HumanCount(*count))?;
            sign = ',';
        }
        writeln!(f)
    }
}
