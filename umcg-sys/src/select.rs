//! Choosing a provider.

use std::{fmt, sync::Arc};

use crate::{Device, Emulated, EmulatedOptions, Error, NoDevice, Provider};

/// The environment variable by which a user chooses a provider: `auto`, `emulated` or `device`.
pub const PROVIDER_ENV: &str = "UMCG_PROVIDER";

/// The provider that the application, or its user, asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ProviderChoice {
    /// The device if it is available, otherwise the emulated provider.
    #[default]
    Auto,
    /// The emulated provider, even if the device is available.
    Emulated,
    /// The device; an error if it is not available.
    Device,
}

impl ProviderChoice {
    /// Reads the choice from the environment variable [`PROVIDER_ENV`]. `None`: it is not set, or
    /// is empty.
    ///
    /// # Errors
    /// The value is none of `auto`, `emulated` and `device`.
    pub fn from_env() -> Result<Option<Self>, SelectError> {
        match std::env::var_os(PROVIDER_ENV) {
            None => Ok(None),
            Some(value) if value.is_empty() => Ok(None),
            Some(value) => value
                .to_str()
                .ok_or_else(|| SelectError::Unknown(value.to_string_lossy().into_owned()))?
                .parse()
                .map(Some),
        }
    }
}

impl std::str::FromStr for ProviderChoice {
    type Err = SelectError;

    fn from_str(text: &str) -> Result<Self, SelectError> {
        match text {
            "auto" => Ok(Self::Auto),
            "emulated" => Ok(Self::Emulated),
            "device" => Ok(Self::Device),
            other => Err(SelectError::Unknown(other.to_owned())),
        }
    }
}

/// A provider, and the reason why it was chosen.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Selected {
    /// The provider.
    pub provider: Arc<dyn Provider>,
    /// The reason in one sentence, for a log.
    pub why: String,
}

/// Why there is no provider as asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SelectError {
    /// The name is none of `auto`, `emulated` and `device`.
    Unknown(String),
    /// The device was asked for and is not available.
    NoDevice(NoDevice),
    /// The emulated provider does not work on this kernel.
    Emulated(Error),
}

impl fmt::Display for SelectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(
                f,
                "unknown UMCG provider {name:?}: {PROVIDER_ENV} and the builder take auto, \
                 emulated or device"
            ),
            Self::NoDevice(why) => write!(
                f,
                "the UMCG provider `device` was asked for and is not available: {why}; use \
                 {PROVIDER_ENV}=auto or emulated to run without it"
            ),
            Self::Emulated(error) => write!(f, "the emulated UMCG provider cannot work: {error}"),
        }
    }
}

impl std::error::Error for SelectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Emulated(error) => Some(error),
            Self::NoDevice(why) => Some(why),
            Self::Unknown(_) => None,
        }
    }
}

/// Returns the provider for a choice.
///
/// # Errors
/// The chosen provider is not available. None is replaced silently: only [`ProviderChoice::Auto`]
/// may end with another provider than the device, and `why` says so.
///
/// # Examples
///
/// ```
/// use umcg_sys::{ProviderChoice, ProviderKind, select};
///
/// let selected = select(ProviderChoice::Emulated)?;
/// assert_eq!(selected.provider.kind(), ProviderKind::Emulated);
/// println!("{}", selected.why);
/// # Ok::<(), umcg_sys::SelectError>(())
/// ```
pub fn select(choice: ProviderChoice) -> Result<Selected, SelectError> {
    select_with(choice, EmulatedOptions::default())
}

/// Returns the provider for a choice, with options for the emulated one.
///
/// # Errors
/// As [`select`].
pub fn select_with(
    choice: ProviderChoice,
    options: EmulatedOptions,
) -> Result<Selected, SelectError> {
    let device = match choice {
        ProviderChoice::Emulated => None,
        ProviderChoice::Auto | ProviderChoice::Device => Some(Device::open()),
    };
    let why = match (choice, device) {
        (_, Some(Ok(device))) => {
            let why = match choice {
                ProviderChoice::Device => "device was asked for",
                _ => "auto took device: the kernel module is loaded and fits",
            };
            return Ok(Selected {
                provider: Arc::new(device),
                why: why.to_owned(),
            });
        }
        (ProviderChoice::Device, Some(Err(why))) => return Err(SelectError::NoDevice(why)),
        (_, Some(Err(why))) => format!("auto took emulated: {why}"),
        (_, None) => "emulated was asked for".to_owned(),
    };
    let provider = Emulated::new(options).map_err(SelectError::Emulated)?;
    Ok(Selected {
        provider: Arc::new(provider),
        why,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ProviderKind;

    #[test]
    fn names_are_parsed_and_others_refused() {
        assert_eq!("auto".parse(), Ok(ProviderChoice::Auto));
        assert_eq!("emulated".parse(), Ok(ProviderChoice::Emulated));
        assert_eq!("device".parse(), Ok(ProviderChoice::Device));
        let error = "kernel".parse::<ProviderChoice>().unwrap_err();
        assert!(
            error.to_string().contains("auto, emulated or device"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_device_is_an_error_by_name_and_a_reason_by_auto() {
        let selected = select(ProviderChoice::Auto).unwrap();
        match Device::open() {
            Ok(_) => {
                assert_eq!(selected.provider.kind(), ProviderKind::Device);
                assert!(
                    selected.why.contains("auto took device"),
                    "{}",
                    selected.why
                );
                let named = select(ProviderChoice::Device).unwrap();
                assert_eq!(named.provider.kind(), ProviderKind::Device);
            }
            Err(why) => {
                let error = select(ProviderChoice::Device).unwrap_err();
                assert_eq!(error, SelectError::NoDevice(why));
                assert!(error.to_string().contains("UMCG_PROVIDER=auto"), "{error}");
                assert_eq!(selected.provider.kind(), ProviderKind::Emulated);
                assert!(
                    selected.why.contains("auto took emulated"),
                    "{}",
                    selected.why
                );
            }
        }
    }
}
