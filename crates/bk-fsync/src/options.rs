//! The choices that a transfer is started with.
//!
//! The rule: everything here has a default that is right for a build context, stated where it is set.

use std::fmt;
use std::sync::Arc;

use crate::filter::FilterOptions;
use crate::policy::{FilePolicies, OwnerPolicy, Utf8Policy};
use crate::report::{SendObserver, Unobserved};

/// How a tree is sent.
#[derive(Clone)]
#[non_exhaustive]
pub struct SendOptions {
    /// What of the tree is visible. Default: everything.
    pub filter: FilterOptions,
    /// What is done about times, modes, owners and changes. Default: that of each policy.
    pub policies: FilePolicies,
    /// Which names may be sent. Default: any.
    pub names: Utf8Policy,
    /// Who watches. Default: nobody.
    pub observer: Arc<dyn SendObserver>,
}

impl Default for SendOptions {
    fn default() -> Self {
        SendOptions {
            filter: FilterOptions::default(),
            policies: FilePolicies::default(),
            names: Utf8Policy::default(),
            observer: Arc::new(Unobserved),
        }
    }
}

impl fmt::Debug for SendOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendOptions")
            .field("filter", &self.filter)
            .field("policies", &self.policies)
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl SendOptions {
    /// The defaults of every field.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the lists that restrict what is visible. Default: empty ones, so everything is.
    #[must_use]
    pub fn filter(mut self, filter: FilterOptions) -> Self {
        self.filter = filter;
        self
    }

    /// Sets who owns the files. Default: [`OwnerPolicy::Reset`].
    #[must_use]
    pub fn owner(mut self, owner: OwnerPolicy) -> Self {
        self.policies.owner = owner;
        self
    }

    /// Sets what is done about times, modes, owners and changes. Default: that of each policy.
    #[must_use]
    pub fn policies(mut self, policies: FilePolicies) -> Self {
        self.policies = policies;
        self
    }

    /// Sets which names may be sent. Default: [`Utf8Policy::Any`].
    #[must_use]
    pub fn names(mut self, names: Utf8Policy) -> Self {
        self.names = names;
        self
    }

    /// Sets who watches. Default: nobody.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn SendObserver>) -> Self {
        self.observer = observer;
        self
    }
}
