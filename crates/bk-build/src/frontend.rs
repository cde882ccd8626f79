//! What turns a request into steps, and what it may do.

use std::{fmt, str::FromStr};

use bk_proto::ops::Definition;

use crate::{BuildRequest, Context, InputError, SourcePolicy};

/// What turns a request into steps.
#[derive(Clone, Default, PartialEq)]
#[non_exhaustive]
pub enum Frontend {
    /// The daemon's own reader of Dockerfiles, which fetches another one when a `# syntax=` line or the build argument
    /// `BUILDKIT_SYNTAX` names it.
    #[default]
    Dockerfile,
    /// A frontend by its name on the wire, for instance `gateway.v0` with an image in the attribute `source`.
    Named(String),
    /// None: the steps themselves. Sources named `local://NAME` in it are the request's named contexts.
    Definition(Definition),
}

impl fmt::Debug for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dockerfile => f.write_str("Dockerfile"),
            Self::Named(name) => f.debug_tuple("Named").field(name).finish(),
            Self::Definition(steps) => write!(f, "Definition({} steps)", steps.def.len()),
        }
    }
}

/// Something that steps may do only when the request permits it, and the daemon's configuration as well.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Entitlement {
    /// `RUN --network=host`: the daemon's own network.
    NetworkHost,
    /// `RUN --security=insecure`: all of the kernel's privileges.
    SecurityInsecure,
    /// Devices of the daemon's machine: all, or `NAME[,alias=…]`. From BuildKit 0.20 on.
    Device(Option<String>),
}

impl fmt::Display for Entitlement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NetworkHost => f.write_str("network.host"),
            Self::SecurityInsecure => f.write_str("security.insecure"),
            Self::Device(None) => f.write_str("device"),
            Self::Device(Some(name)) => write!(f, "device={name}"),
        }
    }
}

impl FromStr for Entitlement {
    type Err = InputError;

    fn from_str(text: &str) -> Result<Self, InputError> {
        match text {
            "network.host" => Ok(Self::NetworkHost),
            "security.insecure" => Ok(Self::SecurityInsecure),
            "device" => Ok(Self::Device(None)),
            _ => match text.strip_prefix("device=") {
                Some(name) if !name.is_empty() => Ok(Self::Device(Some(name.to_owned()))),
                _ => Err(InputError::new(
                    "--allow",
                    format!("`{text}` is nothing that can be permitted"),
                    "network.host, security.insecure, device or device=NAME",
                )),
            },
        }
    }
}

impl BuildRequest {
    /// Runs steps that were made elsewhere, without a context or a Dockerfile. What the definition names as
    /// `local://NAME` comes from [`named_context`](Self::named_context).
    pub fn from_definition(definition: Definition) -> Self {
        let mut request = Self::new(Context::None);
        request.frontend = Frontend::Definition(definition);
        request
    }

    /// Sets what turns the request into steps; the default is the daemon's own reader of Dockerfiles.
    #[must_use]
    pub fn frontend(mut self, frontend: Frontend) -> Self {
        self.frontend = frontend;
        self
    }

    /// Permits something to steps; the default is nothing.
    #[must_use]
    pub fn allow(mut self, entitlement: Entitlement) -> Self {
        self.entitlements.insert(entitlement);
        self
    }

    /// Sets rules for what the build may fetch; the default is none.
    #[must_use]
    pub fn source_policy(mut self, policy: SourcePolicy) -> Self {
        self.source_policy = Some(policy);
        self
    }

    /// Adds a stage whose steps run again; the default is none. Cannot be used together with
    /// [`no_cache`](Self::no_cache).
    #[must_use]
    pub fn no_cache_filter(mut self, stage: impl Into<String>) -> Self {
        self.no_cache_filter.push(stage.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entitlements_are_read_back() {
        for text in [
            "network.host",
            "security.insecure",
            "device",
            "device=vendor.com/x=y",
        ] {
            assert_eq!(text.parse::<Entitlement>().expect(text).to_string(), text);
        }
        for bad in ["", "network", "device="] {
            assert_eq!(bad.parse::<Entitlement>().expect_err(bad).what, "--allow");
        }
    }
}
