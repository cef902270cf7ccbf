//! The providers that a test runs on.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use umcg_sys::{
    Emulated, EmulatedOptions, Placement, Provider, ProviderChoice, ProviderKind, select,
};

/// The environment variable that keeps only the provider under test of this name.
pub(crate) const ONLY: &str = "UMCG_TESTS_PROVIDER";

/// A provider, and how the servers of a test are placed.
#[derive(Clone)]
pub struct ProviderUnderTest {
    /// The name in messages and in `UMCG_TESTS_PROVIDER`.
    pub name: &'static str,
    /// The provider.
    pub provider: Arc<dyn Provider>,
    /// The placement that the servers of a test ask for.
    pub placement: Placement,
}

impl fmt::Debug for ProviderUnderTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderUnderTest")
            .field("name", &self.name)
            .field("provider", &self.provider)
            .finish()
    }
}

/// The providers under test in this run.
///
/// By default this is the emulated provider, with pinned and with unpinned servers.
/// `UMCG_PROVIDER=device` tests the kernel module instead.
///
/// # Panics
/// If the provider that was asked for is not available, or if nothing is left to test.
#[must_use]
pub fn providers_under_test() -> Vec<ProviderUnderTest> {
    static ALL: OnceLock<Vec<ProviderUnderTest>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut all = choose();
        if let Ok(only) = std::env::var(ONLY) {
            all.retain(|provider| provider.name == only);
            assert!(!all.is_empty(), "no provider under test is called {only}");
        }
        all
    })
    .clone()
}

fn choose() -> Vec<ProviderUnderTest> {
    let choice = ProviderChoice::from_env().expect("UMCG_PROVIDER");
    if choice == Some(ProviderChoice::Device) {
        let selected =
            select(ProviderChoice::Device).expect("the provider that UMCG_PROVIDER asks for");
        assert_eq!(selected.provider.kind(), ProviderKind::Device);
        return vec![ProviderUnderTest {
            name: "device",
            provider: selected.provider,
            placement: Placement::Auto,
        }];
    }
    [
        ("emulated-pinned", Placement::Auto),
        ("emulated-unpinned", Placement::Unpinned),
    ]
    .map(|(name, placement)| ProviderUnderTest {
        name,
        provider: Arc::new(
            Emulated::new(EmulatedOptions::default()).expect("the emulated provider"),
        ),
        placement,
    })
    .into()
}
