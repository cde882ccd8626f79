//! `cargo xtask ci windows`: that what people get compiles for Windows, without a warning.
//!
//! The rule: nothing is installed on the system. The C compiler and linker are Debian's, unpacked below `target/daemons`;
//! the standard library is what `rustup target add` puts beside the compiler's own. Where that cannot be had, nothing is
//! checked, and it is said. What is compiled goes to a directory of its own, which continuous integration (`CI` in the
//! environment) does not keep.

use crate::daemons;
use crate::run::{Result, cargo, check, output, workspace};
use std::fs;
use std::path::Path;
use std::process::Command;

const TARGET: &str = "x86_64-pc-windows-gnu";
/// What the tools of that target are called, up to their own names.
const TOOLS: &str = "usr/bin/x86_64-w64-mingw32-";
/// What is checked: `bk`, which has all libraries, and the libraries whose tests need nothing that only Unix has.
const CHECKED: [&[&str]; 2] = [
    &["--package", "bk-cli", "--bins"],
    &[
        "--package",
        "bk-fsync",
        "--package",
        "bk-dial",
        "--package",
        "bk-daemon",
        "--lib",
        "--profile",
        "test",
    ],
];

/// The step itself.
pub(crate) fn main() -> Result<()> {
    if let Err(error) = ensure_standard_library() {
        eprintln!("== NOT CHECKED: there is no standard library for {TARGET}: {error}");
        return Ok(());
    }
    let tools = daemons::windows_tools()?.join(TOOLS);
    let tool = |name: &str| format!("{}{name}", tools.display());
    let dir = workspace().join("target/windows");
    let clippy = |selection: &&[&str]| {
        let mut command = cargo();
        command
            .args(["clippy", "--target", TARGET])
            .args(*selection)
            .args(["--", "--deny", "warnings"])
            .env("CARGO_TARGET_DIR", &dir)
            .env("CC_x86_64_pc_windows_gnu", tool("gcc-win32"))
            .env("AR_x86_64_pc_windows_gnu", tool("ar"));
        check(&mut command)
    };
    let outcome = CHECKED.iter().try_for_each(clippy);
    if std::env::var_os("CI").is_some() {
        fs::remove_dir_all(&dir)?;
    }
    outcome
}

/// Makes the standard library of the target available to the compiler in use.
fn ensure_standard_library() -> Result<()> {
    let mut ask = Command::new("rustc");
    ask.args(["--print", "target-libdir", "--target", TARGET])
        .current_dir(workspace());
    if Path::new(output(&mut ask)?.trim()).exists() {
        return Ok(());
    }
    eprintln!("fetching the standard library for {TARGET} ...");
    let mut fetch = Command::new("rustup");
    output(fetch.args(["target", "add", TARGET]).current_dir(workspace())).map(drop)
}
