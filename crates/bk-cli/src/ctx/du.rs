//! `bk ctx du`: how much would be sent, by directory.

use std::{io::Write, sync::atomic::AtomicBool};

use bk_client::{ContextSize, path::RelPath, path::join};
use serde_json::Map;

use super::look::{self, Ended, Out, put_name, view, warn};
use crate::{args::CtxDuArgs, exit};

/// Runs the command.
pub(super) fn main(args: &CtxDuArgs) -> u8 {
    look::main(|out| run(args, out))
}

fn run(args: &CtxDuArgs, out: &mut Out) -> Result<u8, Ended> {
    let view = view(&args.look, &args.context)?;
    let all = view.sizes(Some(args.depth), &AtomicBool::new(false), &warn)?;
    // Deep trees must not use up the stack.
    let mut open = vec![(&all, Vec::new(), 0)];
    while let Some((size, path, depth)) = open.pop() {
        match args.json {
            true => json(out, size, &path)?,
            false => line(out, size, depth)?,
        }
        for child in size.children.iter().rev() {
            let above = RelPath::new(&path).unwrap_or(RelPath::ROOT);
            open.push((child, join(above, &child.name), depth + 1));
        }
    }
    Ok(exit::SUCCESS)
}

fn line(out: &mut Out, size: &ContextSize, depth: usize) -> Result<(), Ended> {
    write!(
        out,
        "{:>9}  {:>7}  {:indent$}",
        bytes(size.bytes),
        size.files,
        "",
        indent = depth * 2
    )?;
    let name: &[u8] = if size.name.is_empty() { b"." } else { &size.name };
    let name = out.name(name);
    out.write_all(&name)?;
    if size.is_dir && depth > 0 {
        out.write_all(b"/")?;
    }
    out.write_all(b"\n")?;
    Ok(())
}

fn json(out: &mut Out, size: &ContextSize, path: &[u8]) -> Result<(), Ended> {
    let mut object = Map::new();
    put_name(&mut object, "path", path);
    object.insert("kind".to_owned(), if size.is_dir { "dir" } else { "file" }.into());
    object.insert("bytes".to_owned(), size.bytes.into());
    object.insert("files".to_owned(), size.files.into());
    out.json(object)?;
    Ok(())
}

/// A number of bytes in three digits.
#[expect(clippy::cast_precision_loss, reason = "three digits are drawn")]
fn bytes(count: u64) -> String {
    let mut size = count as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if size < 999.5 {
            return match unit {
                "B" => format!("{count} B"),
                _ if size < 9.95 => format!("{size:.1} {unit}"),
                _ => format!("{size:.0} {unit}"),
            };
        }
        size /= 1000.0;
    }
    format!("{size:.1} TB")
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_are_short() {
        let shown = [0, 999, 1000, 9_949, 10_000, 999_499, 999_500, 5_000_000_000].map(bytes);
        assert_eq!(
            shown,
            [
                "0 B", "999 B", "1.0 kB", "9.9 kB", "10 kB", "999 kB", "1.0 MB", "5.0 GB"
            ]
        );
    }
}
