//! A build of which only a context is looked at: from arguments to its request.

use std::path::Path;

use bk_client::{BuildError, BuildRequest, Context, FilePolicies, InputError, ModePolicy, NamedContext};

use super::{Surroundings, context, dockerfile, from_environment};
use crate::args::{ContextMode, LookArgs};

/// The request, and the name of the context that is looked at if it is not the main one.
///
/// # Errors
/// A wrong argument, or a file that cannot be used.
pub(crate) fn look_request(
    args: &LookArgs,
    directory: &Path,
    around: &impl Surroundings,
) -> Result<(BuildRequest, Option<String>), BuildError> {
    const CONTEXTS: &str = "--build-context";
    let context = context(directory)?;
    if let Context::Remote(address) = &context {
        let why = format!("`{address}` is fetched by the daemon, and never passes this machine");
        return Err(InputError::new("DIR", why, "a directory on this machine").into());
    }
    let mut request = BuildRequest::new(context);
    let mut look = None;
    for text in &args.build_contexts {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                request = request.named_context(name, NamedContext::parse(value)?);
            }
            None if !text.is_empty() && look.is_none() => look = Some(text.clone()),
            None if !text.is_empty() => {
                let why = format!("`{text}`: only one context can be looked at");
                return Err(InputError::new(CONTEXTS, why, "one NAME without a value").into());
            }
            _ => {
                let why = format!("`{text}` has no name");
                return Err(InputError::new(CONTEXTS, why, "NAME=VALUE or NAME").into());
            }
        }
    }
    for text in &args.build_args {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (&**text, from_environment(text, around)?),
        };
        if let Some(value) = value {
            request.build_args.insert(key.to_owned(), value);
        }
    }
    request.target.clone_from(&args.target);
    request.platforms.extend(args.platform.clone());
    request.files = FilePolicies::new().mode(match args.context_mode {
        ContextMode::Keep => ModePolicy::Keep,
        ContextMode::Git => ModePolicy::Git,
    });
    request.validate()?;
    request.dockerfile = dockerfile(args.file.as_deref(), false, around)?;
    Ok((request, look))
}
