//! `--output`, `--load` and `--push`: what comes out, in the grammar of `docker buildx build`.
//!
//! The rule: standard output carries one result or none, and never to a terminal.

use std::path::Path;

use bk_client::{InputError, Output, OutputKind, ReceiveMode, ReceiveOptions, Sink};

use crate::{args::ResultArgs, csv};

const FLAG: &str = "--output";
const TYPES: &str = "type=local|tar|oci|docker|image|registry|cacheonly, or a directory, or -";

/// The outputs that the flags mean. None at all means the default of the library.
///
/// # Errors
/// A value that makes no sense, or standard output asked for twice or as a terminal.
pub(crate) fn outputs(args: &ResultArgs, terminal: bool) -> Result<Vec<Output>, InputError> {
    let mut all = Vec::new();
    let mut streams = 0;
    for text in &args.outputs {
        let (output, streamed) = one(text, terminal)?;
        streams += usize::from(streamed);
        all.push(output);
    }
    if streams > 1 {
        let why = "only one result can go to standard output";
        return Err(InputError::new(FLAG, why, "dest=FILE for the others"));
    }
    if args.push {
        let mut pushes = false;
        for output in all.iter_mut().filter(|o| o.kind == OutputKind::Image) {
            output.attrs.insert("push".to_owned(), "true".to_owned());
            pushes = true;
        }
        if !pushes {
            all.push(Output::registry());
        }
    }
    if args.load && !all.iter().any(is_load) {
        all.push(Output::load());
    }
    if args.iidfile.is_some() {
        check_image_id(&all)?;
    }
    Ok(all)
}

/// Whether a result goes to standard output, so that nothing else may.
pub(crate) fn use_stdout(outputs: &[Output]) -> bool {
    outputs.iter().any(|o| matches!(o.sink, Sink::Writer(_)))
}

fn is_load(output: &Output) -> bool {
    output.kind == OutputKind::Docker && matches!(output.sink, Sink::Engine(_))
}

fn check_image_id(all: &[Output]) -> Result<(), InputError> {
    let files = all
        .iter()
        .find(|o| matches!(o.kind, OutputKind::Local | OutputKind::Tar));
    let why = match files {
        Some(output) => format!("an output of type {} has no image id", output.kind),
        None if !all.is_empty() && !all.iter().any(|o| o.kind.is_image()) => "no image comes out".to_owned(),
        None => return Ok(()),
    };
    Err(InputError::new(
        "--iidfile",
        why,
        "a file, for a build whose outputs are images",
    ))
}

/// One `--output`, and whether it goes to standard output.
fn one(text: &str, terminal: bool) -> Result<(Output, bool), InputError> {
    let fields = csv::keyed(FLAG, text)?;
    // A single word is a directory, or standard output.
    if let [only] = &fields[..]
        && only.text == text
        && !text.starts_with("type=")
    {
        return match text {
            "-" => stream(OutputKind::Tar, terminal),
            "" => Err(InputError::new(FLAG, "it must not be empty", TYPES)),
            dir => local(dir, ReceiveMode::Copy).map(|output| (output, false)),
        };
    }
    let mut kind = None;
    let mut dest = None;
    let mut attrs = Vec::new();
    for field in fields {
        let Some(value) = field.value else {
            let why = format!("`{}` is not KEY=VALUE", field.text);
            return Err(InputError::new(FLAG, why, TYPES));
        };
        match field.key.as_str() {
            "type" => kind = Some(value),
            "dest" => dest = Some(value),
            // Keys of annotations are the user's own.
            key if key.starts_with("annotation") => {
                let own = field.text.split_once('=').map_or(key, |(k, _)| k.trim());
                attrs.push((own.to_owned(), value));
            }
            key => attrs.push((key.to_owned(), value)),
        }
    }
    let Some(kind) = kind else {
        return Err(InputError::new(FLAG, format!("`{text}` names no type"), TYPES));
    };
    let mut mode = ReceiveMode::Copy;
    if kind == "local"
        && let Some(at) = attrs.iter().position(|(key, _)| key == "mode")
    {
        mode = match attrs.remove(at).1.as_str() {
            "copy" => ReceiveMode::Copy,
            "delete" => ReceiveMode::Delete,
            other => {
                let why = format!("`mode={other}` is not known");
                return Err(InputError::new(FLAG, why, "mode=copy or mode=delete"));
            }
        };
    }
    if kind == "docker" {
        let context = attrs
            .iter()
            .position(|(key, _)| key == "context")
            .map(|at| attrs.remove(at).1);
        if let Some(name) = context.filter(|c| !c.is_empty() && c != "default") {
            let why = format!("`context={name}`: contexts of the docker program are not supported");
            return Err(InputError::new(FLAG, why, "DOCKER_HOST to name the engine"));
        }
    }
    let layout = attrs.iter().any(|(key, value)| {
        key == "tar" && matches!(&**value, "0" | "f" | "F" | "false" | "FALSE" | "False")
    });
    let (mut output, streamed) = match (&*kind, layout) {
        ("oci", true) => (self::layout(OutputKind::Oci, dest.as_deref())?, false),
        ("docker", true) => (self::layout(OutputKind::Docker, dest.as_deref())?, false),
        _ => place(&kind, dest.as_deref(), mode, terminal)?,
    };
    for (key, value) in attrs {
        output.attrs.insert(key, value);
    }
    output.validate()?;
    Ok((output, streamed))
}

fn place(
    kind: &str,
    dest: Option<&str>,
    mode: ReceiveMode,
    terminal: bool,
) -> Result<(Output, bool), InputError> {
    let bad = |why: String, allowed: &str| Err(InputError::new(FLAG, why, allowed));
    let archive = |kind: OutputKind| match dest {
        None | Some("" | "-") => stream(kind, terminal),
        Some(path) if Path::new(path).is_dir() => bad(
            format!("`dest={path}` is a directory"),
            "dest=FILE for an archive",
        ),
        Some(path) => Ok((Output::new(kind, Sink::File(path.into())), false)),
    };
    let daemon = |output: Output| match dest {
        Some(_) => bad(
            format!("type {kind} has no `dest`"),
            "dest for local, tar, oci and docker",
        ),
        None => Ok((output, false)),
    };
    match (kind, dest) {
        ("local", None | Some("")) => bad("type local needs a `dest`".to_owned(), "dest=DIRECTORY"),
        ("local", Some("-")) => bad("type local cannot go to standard output".to_owned(), "type=tar"),
        ("local", Some(dir)) => local(dir, mode).map(|output| (output, false)),
        ("tar", _) => archive(OutputKind::Tar),
        ("oci", _) => archive(OutputKind::Oci),
        ("docker", None | Some("")) => Ok((Output::load(), false)),
        ("docker", _) => archive(OutputKind::Docker),
        ("image", _) => daemon(Output::image()),
        ("registry", _) => daemon(Output::registry()),
        ("cacheonly", _) => daemon(Output::cache_only()),
        _ => bad(format!("type `{kind}` is not known"), TYPES),
    }
}

/// An image layout in a directory, `tar=false`.
fn layout(kind: OutputKind, dest: Option<&str>) -> Result<Output, InputError> {
    let Some(dir) = dest.filter(|dest| !matches!(*dest, "" | "-")) else {
        let why = format!("`tar=false` of type {kind} needs a `dest`");
        return Err(InputError::new(FLAG, why, "dest=DIRECTORY for `tar=false`"));
    };
    if std::fs::metadata(dir).is_ok_and(|found| !found.is_dir()) {
        let why = format!("`{dir}` is a file");
        return Err(InputError::new(FLAG, why, "a directory for `tar=false`"));
    }
    let (path, options) = (dir.into(), ReceiveOptions::new());
    Ok(Output::new(kind, Sink::Dir { path, options }))
}

fn local(dir: &str, mode: ReceiveMode) -> Result<Output, InputError> {
    if std::fs::metadata(dir).is_ok_and(|found| !found.is_dir()) {
        let why = format!("`{dir}` is a file");
        return Err(InputError::new(FLAG, why, "a directory for type local"));
    }
    Ok(Output::local_with(dir, ReceiveOptions::new().mode(mode)))
}

fn stream(kind: OutputKind, terminal: bool) -> Result<(Output, bool), InputError> {
    if terminal {
        let why = format!("type {kind} is not written to a terminal");
        return Err(InputError::new(
            FLAG,
            why,
            "dest=FILE, or standard output as a file or pipe",
        ));
    }
    let sink = Sink::writer(|_| Ok(Box::new(tokio::io::stdout())));
    Ok((Output::new(kind, sink), true))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(outputs: &[&str]) -> ResultArgs {
        ResultArgs {
            outputs: outputs.iter().map(|o| (*o).to_owned()).collect(),
            ..ResultArgs::default()
        }
    }

    fn said(args: &ResultArgs) -> Vec<String> {
        let all = outputs(args, false).unwrap_or_else(|e| panic!("{:?}: {e}", args.outputs));
        all.iter()
            .map(|o| {
                let sink = match &o.sink {
                    Sink::Dir { path, options } => format!("dir {} {:?}", path.display(), options.mode),
                    other => format!("{other:?}"),
                };
                format!("{} {sink} {:?}", o.kind, o.attrs)
            })
            .collect()
    }

    #[test]
    fn values_mean_what_buildx_means_by_them() {
        for (text, expected) in [
            ("out", "local dir out Copy {}"),
            ("./a=b", "local dir ./a=b Copy {}"),
            ("-", "tar Writer(..) {}"),
            ("type=local,dest=out", "local dir out Copy {}"),
            ("type=local,dest=out,mode=delete", "local dir out Delete {}"),
            (
                "type=local,dest=out,mode=copy,platform-split=false",
                r#"local dir out Copy {"platform-split": "false"}"#,
            ),
            // One field that does not begin with `type=` is a directory.
            ("TYPE=tar", "local dir TYPE=tar Copy {}"),
            ("type=tar,dest=-", "tar Writer(..) {}"),
            ("type=tar,dest=f.tar", r#"tar File("f.tar") {}"#),
            ("type=oci,dest=f", r#"oci File("f") {}"#),
            ("type=docker,dest=f", r#"docker File("f") {}"#),
            ("type=oci,tar=false,dest=d", r#"oci dir d Copy {"tar": "false"}"#),
            ("type=docker,dest=d,tar=0", r#"docker dir d Copy {"tar": "0"}"#),
            ("type=docker", "docker Engine(..) {}"),
            ("type=docker,context=default", "docker Engine(..) {}"),
            ("type=image", "image Daemon {}"),
            (
                r#"type=image,"name=a,b",push=true,Compression=zstd,compression-level=3"#,
                r#"image Daemon {"compression": "zstd", "compression-level": "3", "name": "a,b", "push": "true"}"#,
            ),
            (
                "type=image,annotation-index.Com.X=Y",
                r#"image Daemon {"annotation-index.Com.X": "Y"}"#,
            ),
            ("type=registry", r#"image Daemon {"push": "true"}"#),
            ("type=registry,push=false", r#"image Daemon {"push": "false"}"#),
            ("type=cacheonly", "cacheonly Daemon {}"),
        ] {
            assert_eq!(said(&args(&[text])), [expected], "{text}");
        }
        assert!(said(&args(&[])).is_empty());
        assert_eq!(said(&args(&["a", "type=oci,dest=f"])).len(), 2);
    }

    #[test]
    fn load_and_push_add_to_what_is_there() {
        let with = |texts: &[&str], load: bool, push: bool| {
            said(&ResultArgs {
                load,
                push,
                ..args(texts)
            })
        };
        let (loaded, pushed) = ("docker Engine(..) {}", r#"image Daemon {"push": "true"}"#);
        assert_eq!(with(&[], true, false), [loaded]);
        assert_eq!(with(&[], false, true), [pushed]);
        assert_eq!(with(&[], true, true), [pushed, loaded]);
        assert_eq!(with(&["type=docker"], true, false), [loaded]);
        assert_eq!(with(&["type=image"], false, true), [pushed]);
        assert_eq!(
            with(&["type=docker,dest=f"], true, true),
            [r#"docker File("f") {}"#, pushed, loaded]
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        std::fs::write(&file, "").expect("writable");
        for (text, why) in [
            ("".to_owned(), "must not be empty"),
            ("type=".to_owned(), "type `` is not known"),
            ("type=zip,dest=f".to_owned(), "type `zip` is not known"),
            ("dest=f,push=true".to_owned(), "names no type"),
            ("type=tar,dest".to_owned(), "`dest` is not KEY=VALUE"),
            ("type=local".to_owned(), "needs a `dest`"),
            ("type=local,dest=-".to_owned(), "standard output"),
            ("type=local,dest=f,mode=move".to_owned(), "`mode=move`"),
            ("type=image,dest=f".to_owned(), "has no `dest`"),
            ("type=tar,dest=f,push=true".to_owned(), "cannot be pushed"),
            ("type=oci,tar=false".to_owned(), "needs a `dest`"),
            ("type=oci,tar=false,dest=-".to_owned(), "needs a `dest`"),
            ("type=docker,tar=false".to_owned(), "needs a `dest`"),
            (format!("type=oci,tar=false,dest={}", file.display()), "is a file"),
            ("type=docker,context=other".to_owned(), "`context=other`"),
            (
                format!("type=tar,dest={}", dir.path().display()),
                "is a directory",
            ),
            (format!("type=local,dest={}", file.display()), "is a file"),
            (file.display().to_string(), "is a file"),
        ] {
            let e = outputs(&args(&[&text]), false).expect_err(&text);
            assert!(e.what == FLAG && e.message.contains(why), "{text}: {e}");
        }
        let e = outputs(&args(&["-", "type=oci"]), false).expect_err("two streams");
        assert!(e.message.contains("only one result"), "{e}");
    }

    #[test]
    fn no_archive_goes_to_a_terminal() {
        for text in ["-", "type=tar", "type=oci,dest=-", "type=docker,dest=-"] {
            let e = outputs(&args(&[text]), true).expect_err(text);
            assert!(e.message.contains("terminal"), "{e}");
        }
        assert!(outputs(&args(&["type=docker", "out", "type=tar,dest=f"]), true).is_ok());
    }

    #[test]
    fn files_have_no_image_id() {
        let with = |texts: &[&str]| {
            outputs(
                &ResultArgs {
                    iidfile: Some("iid".into()),
                    ..args(texts)
                },
                false,
            )
        };
        for texts in [
            &["out"][..],
            &["type=image", "type=tar,dest=f"],
            &["type=cacheonly"],
        ] {
            assert_eq!(with(texts).expect_err("refused").what, "--iidfile");
        }
        assert!(with(&[]).is_ok() && with(&["type=oci,dest=f"]).is_ok() && with(&["type=docker"]).is_ok());
    }
}
