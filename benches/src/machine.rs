//! The machine that a run is made on.

use std::fs;

use serde::{Deserialize, Serialize};

/// The machine, its kernel, and the provider.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Machine {
    pub processor: String,
    pub cpus: usize,
    pub memory_mib: u64,
    pub kernel: String,
    pub provider: String,
    pub provider_description: String,
    pub workers: usize,
    pub load: String,
}

impl Machine {
    /// Whether results of the two machines may be in one table.
    pub fn is_like(&self, other: &Self) -> bool {
        (&self.processor, self.cpus, &self.kernel) == (&other.processor, other.cpus, &other.kernel)
            && (&self.provider, self.workers) == (&other.provider, other.workers)
    }

    /// This machine, with the provider of that runtime.
    pub fn here(metrics: &umcg::RuntimeMetrics) -> Self {
        let line = |file: &str, key: &str| {
            fs::read_to_string(file).ok().and_then(|text| {
                text.lines()
                    .find(|line| line.starts_with(key))
                    .and_then(|line| line.split_once(':'))
                    .map(|(_, value)| value.trim().to_owned())
            })
        };
        let read = |file: &str| {
            fs::read_to_string(file)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        Self {
            processor: line("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into()),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: line("/proc/meminfo", "MemTotal")
                .and_then(|v| v.split_whitespace().next()?.parse::<u64>().ok())
                .unwrap_or(0)
                / 1024,
            kernel: read("/proc/sys/kernel/osrelease"),
            provider: metrics.provider_kind().to_string(),
            provider_description: metrics.provider_description().to_owned(),
            workers: metrics.num_servers(),
            load: read("/proc/loadavg"),
        }
    }
}
