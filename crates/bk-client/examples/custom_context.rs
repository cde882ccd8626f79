//! A context of a kind that nobody foresaw: files that are computed when the daemon asks for them. Here each is the text
//! of a multiplication table; it could be a row of a database or an object of a store. The name of the image is the first
//! argument.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example talks to a terminal"
)]

use std::{
    error::Error,
    io::{self, Cursor, Read},
    sync::Arc,
};

use bk_client::{
    BuildRequest, Context, Dockerfile, EventSink, ImageBuilder,
    entry::{Kind, Meta},
    path::RelPath,
    tree::{Directory, Listed, OpenFile, Tree},
};

/// One directory with the files `1` to `9`.
#[derive(Clone, Copy)]
struct Tables;

/// The bytes of a file, or that there is no such file.
fn table(name: &[u8]) -> io::Result<String> {
    match name {
        [digit @ b'1'..=b'9'] => {
            let n = u32::from(digit - b'0');
            Ok((1..=9).map(|m| format!("{n} x {m} = {}\n", n * m)).collect())
        }
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Size and time; a change of either tells the daemon that it lacks the file.
fn meta(text: &str) -> Meta {
    let mut meta = Meta::new(Kind::File);
    meta.size = text.len() as u64;
    meta
}

impl Tree for Tables {
    fn open_dir(&self, path: RelPath<'_>) -> io::Result<Box<dyn Directory>> {
        match path.is_root() {
            true => Ok(Box::new(*self)),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn open(&self, path: RelPath<'_>) -> io::Result<Box<dyn OpenFile>> {
        Ok(Box::new(Open(Cursor::new(table(path.as_bytes())?))))
    }
}

impl Directory for Tables {
    fn list(&mut self) -> io::Result<Vec<Listed>> {
        let listed = |digit: u8| Listed {
            name: vec![digit],
            kind: Some(Kind::File),
        };
        Ok((b'1'..=b'9').map(listed).collect())
    }

    fn stat(&self, name: &[u8]) -> io::Result<Meta> {
        Ok(meta(&table(name)?))
    }

    fn read_link(&self, _name: &[u8]) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::InvalidInput.into())
    }

    fn open_dir(&self, _name: &[u8]) -> io::Result<Box<dyn Directory>> {
        Err(io::ErrorKind::NotADirectory.into())
    }
}

struct Open(Cursor<String>);

impl Read for Open {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl OpenFile for Open {
    fn stat(&self) -> io::Result<Meta> {
        Ok(meta(self.0.get_ref()))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "tables:1".to_owned());
    // Only what the Dockerfile needs is asked for.
    let request = BuildRequest::new(Context::Tree(Arc::new(Tables)))
        .dockerfile(Dockerfile::Inline("FROM scratch\nCOPY 3 7 /tables/\n".into()))
        .tag(name);
    let client = bk_client::connect().await?;
    let outcome = client
        .build(request, EventSink::from_fn(|event| eprintln!("{event:?}")))
        .await?;
    println!(
        "built {} of {} files",
        outcome.image_id.unwrap_or_default(),
        outcome.transfer.sent_files
    );
    Ok(())
}
