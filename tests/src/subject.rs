//! Who is tested.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use umcg_sys::{
    Emulated, EmulatedOptions, Placement, Provider, ProviderChoice, ProviderKind, select,
};

/// A provider, and how its servers are placed.
#[derive(Clone)]
pub struct Subject {
    /// For messages.
    pub name: &'static str,
    /// The provider.
    pub provider: Arc<dyn Provider>,
    /// The placement that the servers of a test ask for.
    pub placement: Placement,
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("name", &self.name)
            .field("provider", &self.provider)
            .finish()
    }
}

/// The subjects of this run.
///
/// By default the emulated provider, with pinned and with unpinned servers.
/// `UMCG_PROVIDER=device` tests the kernel module instead. `UMCG_TESTS_SUBJECT` keeps only the
/// subject of that name.
///
/// # Panics
/// If a provider that was asked for is not to be had, or nothing is left to test.
#[must_use]
pub fn subjects() -> Vec<Subject> {
    static SUBJECTS: OnceLock<Vec<Subject>> = OnceLock::new();
    SUBJECTS
        .get_or_init(|| {
            let mut all = choose();
            if let Ok(only) = std::env::var("UMCG_TESTS_SUBJECT") {
                all.retain(|subject| subject.name == only);
                assert!(!all.is_empty(), "no subject is called {only}");
            }
            all
        })
        .clone()
}

fn choose() -> Vec<Subject> {
    let choice = ProviderChoice::from_env().expect("UMCG_PROVIDER");
    if choice == Some(ProviderChoice::Device) {
        let selected =
            select(ProviderChoice::Device).expect("the provider that UMCG_PROVIDER asks for");
        assert_eq!(selected.provider.kind(), ProviderKind::Device);
        return vec![Subject {
            name: "device",
            provider: selected.provider,
            placement: Placement::Auto,
        }];
    }
    let emulated = || -> Arc<dyn Provider> {
        Arc::new(Emulated::new(EmulatedOptions::default()).expect("the emulated provider"))
    };
    vec![
        Subject {
            name: "emulated-pinned",
            provider: emulated(),
            placement: Placement::Auto,
        },
        Subject {
            name: "emulated-unpinned",
            provider: emulated(),
            placement: Placement::Unpinned,
        },
    ]
}

/// The providers of this run.
#[must_use]
pub fn providers() -> Vec<Arc<dyn Provider>> {
    subjects()
        .into_iter()
        .map(|subject| subject.provider)
        .collect()
}
