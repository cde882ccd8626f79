//! Bake files: many builds written down in one place, as named targets with plain fields.
//!
//! Files that `docker buildx bake` reads go in: `docker-bake.json`, and the `build` sections of compose files. Out comes a
//! [`Plan`]: the targets that were asked for, with everything that they inherit and every override in its place.
//!
//! ```
//! use bk_bake::{Definition, File, Variables};
//!
//! # fn main() -> Result<(), bk_build::InputError> {
//! let file = File::new(
//!     "docker-bake.json",
//!     r#"{
//!         "variable": {"TAG": {"default": "dev"}},
//!         "group": {"default": {"targets": ["web"]}},
//!         "target": {
//!             "base": {"args": {"LEVEL": "1"}},
//!             "web": {"inherits": ["base"], "tags": ["web:${TAG}"]}
//!         }
//!     }"#,
//! );
//! let variables = Variables::new([("TAG", "1.0")]);
//! let definition = Definition::parse(&[file], &variables)?;
//! let plan = definition.plan(&[], &["*.args.LEVEL=2"], &variables)?;
//! assert_eq!(plan.targets["web"].tags, ["web:1.0"]);
//! assert_eq!(plan.targets["web"].args["LEVEL"], "2");
//! # Ok(())
//! # }
//! ```
//!
//! The rule: everything here is text to data. Nothing reads the environment, prints, or asks a daemon, and only
//! [`Allowed::missing`] looks at the file system. What is not understood is an error that names the file, the target and
//! the key, never a default. HCL is not read; `docker buildx bake --print` writes what it means as JSON.

mod allowed;
mod compose;
pub mod csv;
mod decode;
mod definition;
mod entry;
mod glob;
mod json;
pub mod limits;
mod matrix;
mod node;
mod overrides;
mod paths;
mod plan;
mod target;
mod template;
mod variables;
mod yaml;

pub use allowed::Allowed;
pub use definition::{DEFAULT_FILES, Definition, File, HCL_FILES, Listed};
pub use entry::{Attest, CacheEntry, OutputEntry, SecretEntry, SshEntry};
pub use plan::Plan;
pub use target::{Group, Target};
pub use variables::{Variable, Variables};
