//! How the files of the context are sent: from flags, and the environment, to policies.

use std::{path::PathBuf, sync::Arc};

use bk_client::{
    ChangePolicy, ContentOptions, DirHashCache, FilePolicies, InputError, ModePolicy, OwnerPolicy,
    SyncPolicy, user_cache_dir,
};

use crate::{
    args::{ContextMode, FileArgs, OnChange, Sync},
    limits::CHANGE_RETRIES,
    request::Surroundings,
};

/// The policies that the arguments mean.
///
/// # Errors
/// A value that has no meaning.
pub(crate) fn policies(args: &FileArgs, around: &impl Surroundings) -> Result<FilePolicies, InputError> {
    let sync = match args.sync {
        Sync::Exact => SyncPolicy::Exact,
        Sync::Mtime => SyncPolicy::Mtime,
        Sync::Content => SyncPolicy::Content(content(around)?),
    };
    let mode = match args.context_mode {
        ContextMode::Keep => ModePolicy::Keep,
        ContextMode::Git => ModePolicy::Git,
    };
    let change = match args.on_change {
        OnChange::Error => ChangePolicy::Error,
        OnChange::Retry => ChangePolicy::Retry(CHANGE_RETRIES),
        OnChange::Warn => ChangePolicy::Warn,
    };
    let owner = owner(&args.context_owner)?;
    Ok(FilePolicies::new()
        .sync(sync)
        .mode(mode)
        .owner(owner)
        .change(change))
}

fn content(around: &impl Surroundings) -> Result<ContentOptions, InputError> {
    const EPOCH: &str = "SOURCE_DATE_EPOCH";
    let mut options = ContentOptions::new();
    if let Some(value) = around.var(EPOCH).filter(|v| !v.is_empty()) {
        let text = value.to_string_lossy();
        let seconds = text.parse().map_err(|_| {
            let why = format!("`{text}` is not a number of seconds");
            InputError::new(EPOCH, why, "whole seconds since 1970-01-01 UTC")
        })?;
        options = options.seconds(seconds);
    }
    if let Some(dir) = cache_dir(around, "hashes") {
        options = options.cache(Arc::new(DirHashCache::new(dir)));
    }
    Ok(options)
}

/// The directory of that name for what is kept between builds; none without a home.
pub(crate) fn cache_dir(around: &impl Surroundings, name: &str) -> Option<PathBuf> {
    let base = user_cache_dir(|name| around.var(name))?;
    Some(base.join("bk").join(name))
}

fn owner(text: &str) -> Result<OwnerPolicy, InputError> {
    match text {
        "reset" => return Ok(OwnerPolicy::Reset),
        "keep" => return Ok(OwnerPolicy::Keep),
        _ => {}
    }
    let number = |part: &str| part.parse::<u32>().ok().filter(|_| !part.starts_with('+'));
    text.split_once(':')
        .and_then(|(uid, gid)| {
            Some(OwnerPolicy::Fixed {
                uid: number(uid)?,
                gid: number(gid)?,
            })
        })
        .ok_or_else(|| {
            let why = format!("`{text}` is not an owner");
            InputError::new("--context-owner", why, "reset, keep, or UID:GID in numbers")
        })
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsString, io::Read};

    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    struct Given(&'static [(&'static str, &'static str)]);

    impl Surroundings for Given {
        fn var(&self, name: &str) -> Option<OsString> {
            let found = self.0.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| OsString::from(value))
        }

        fn stdin(&self) -> Box<dyn Read> {
            Box::new(std::io::empty())
        }

        fn stdin_rest(&self) -> bk_client::ArchiveReader {
            Box::pin(tokio::io::empty())
        }
    }

    fn of(flags: &[&str], around: &'static [(&str, &str)]) -> Result<FilePolicies, String> {
        let line = [&["bk", "build"], flags, &["."]].concat();
        let args = match Cli::try_parse_from(line).map_err(|e| e.to_string())?.command {
            Command::Build(args) => args,
            other => return Err(format!("not a build: {other:?}")),
        };
        policies(&args.files, &Given(around)).map_err(|e| e.to_string())
    }

    #[test]
    fn flags_have_their_policies() {
        let plain = of(&[], &[("SOURCE_DATE_EPOCH", "not looked at")]).expect("the defaults");
        assert!(matches!(plain.sync, SyncPolicy::Exact));
        assert_eq!(
            (plain.mode, plain.change),
            (ModePolicy::Keep, ChangePolicy::Error)
        );
        assert_eq!(plain.owner, OwnerPolicy::Reset);
        let flags = [
            "--sync=mtime",
            "--context-mode=git",
            "--context-owner=7:8",
            "--on-change=retry",
        ];
        let found = of(&flags, &[]).expect("all of them");
        assert!(matches!(found.sync, SyncPolicy::Mtime));
        assert_eq!(
            (found.mode, found.change),
            (ModePolicy::Git, ChangePolicy::Retry(CHANGE_RETRIES))
        );
        assert_eq!(found.owner, OwnerPolicy::Fixed { uid: 7, gid: 8 });
        assert_eq!(
            of(&["--context-owner", "keep"], &[]).expect("keep").owner,
            OwnerPolicy::Keep
        );
        for bad in ["", "7", "7:", "me:8", "+7:8", "-1:8", "7:8:9", "4294967296:0"] {
            let error = of(&[&format!("--context-owner={bad}")], &[]).expect_err(bad);
            assert!(error.contains("is not an owner"), "{error}");
        }
        assert!(of(&["--sync=fast"], &[]).is_err());
    }

    #[test]
    fn content_takes_its_time_and_cache_from_the_environment() {
        let content = |around| -> Result<ContentOptions, String> {
            match of(&["--sync", "content"], around)?.sync {
                SyncPolicy::Content(options) => Ok(options),
                other => panic!("{other:?}"),
            }
        };
        let bare = content(&[]).expect("no environment");
        assert_eq!(bare.seconds, ContentOptions::new().seconds);
        assert!(bare.cache.is_none());
        let home = content(&[("HOME", "/home/u"), ("SOURCE_DATE_EPOCH", "1600000000")]).expect("both");
        assert_eq!((home.seconds, home.cache.is_some()), (1_600_000_000, true));
        let error = content(&[("SOURCE_DATE_EPOCH", "now")]).expect_err("no number");
        assert!(error.contains("SOURCE_DATE_EPOCH"), "{error}");
        let dir = |around| cache_dir(&Given(around), "hashes");
        assert_eq!(dir(&[("HOME", "/h")]), Some("/h/.cache/bk/hashes".into()));
        assert_eq!(
            dir(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/c")]),
            Some("/c/bk/hashes".into())
        );
        assert_eq!(dir(&[("HOME", "h"), ("XDG_CACHE_HOME", "c")]), None);
    }
}
