//! Draws nothing until a step fails, then all that the step wrote.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, Write},
};

use bk_build::{BuildEvent, Vertex, VertexId};

use crate::{
    Renderer,
    limits::{QUIET_BYTES, QUIET_STEP_BYTES},
    out::Out,
    text::{Cleaner, Piece, neutralise_line},
};

/// Draws nothing but, at the end, the name and the whole output of each step that failed.
///
/// The output of running steps is kept for that: at most [`QUIET_STEP_BYTES`] of each and [`QUIET_BYTES`] in all. Of longer
/// output the end is kept, and the report says how much is missing. What the daemon itself clips is not known here; its own
/// notice is a part of the output.
pub struct Quiet<W> {
    out: Out<W>,
    steps: HashMap<VertexId, Step>,
    /// Steps that failed, in the order in which they did.
    failed: Vec<VertexId>,
    held: usize,
}

#[derive(Default)]
struct Step {
    name: String,
    failed: bool,
    output: VecDeque<u8>,
    missing: u64,
}

impl Step {
    /// Forgets the first `count` bytes.
    fn forget(&mut self, count: usize) {
        self.output.drain(..count);
        self.missing += count as u64;
    }
}

impl<W: Write> Quiet<W> {
    /// Draws to `out`.
    pub fn new(out: W) -> Self {
        Self {
            out: Out::new(out),
            steps: HashMap::new(),
            failed: Vec::new(),
            held: 0,
        }
    }

    fn start(&mut self, vertex: &Vertex) {
        self.end(vertex);
        let step = Step {
            name: neutralise_line(&vertex.name),
            ..Step::default()
        };
        self.steps.insert(vertex.id.clone(), step);
    }

    fn end(&mut self, vertex: &Vertex) {
        if let Some(step) = self.steps.remove(&vertex.id) {
            self.held -= step.output.len();
            if step.failed {
                self.failed.retain(|id| *id != vertex.id);
            }
        }
    }

    fn fail(&mut self, vertex: &Vertex) {
        if vertex.is_cancelled() {
            return self.end(vertex);
        }
        let step = self.steps.entry(vertex.id.clone()).or_insert_with(|| Step {
            name: neutralise_line(&vertex.name),
            ..Step::default()
        });
        if !std::mem::replace(&mut step.failed, true) {
            self.failed.push(vertex.id.clone());
        }
    }

    fn log(&mut self, vertex: &VertexId, data: &[u8]) {
        let Some(step) = self.steps.get_mut(vertex) else {
            return;
        };
        let before = step.output.len();
        step.output.extend(data);
        if step.output.len() > QUIET_STEP_BYTES {
            step.forget(step.output.len() - QUIET_STEP_BYTES);
        }
        self.held = self.held - before + step.output.len();
        if self.held > QUIET_BYTES
            && let Some(largest) = self.steps.values_mut().max_by_key(|s| s.output.len())
        {
            let half = largest.output.len() / 2;
            largest.forget(half);
            self.held -= half;
        }
    }
}

impl<W: Write> Renderer for Quiet<W> {
    fn event(&mut self, event: &BuildEvent) -> io::Result<()> {
        match event {
            BuildEvent::VertexStarted(v) => self.start(v),
            BuildEvent::VertexCached(v) | BuildEvent::VertexCompleted(v) => self.end(v),
            BuildEvent::VertexFailed(v) => self.fail(v),
            BuildEvent::Log(l) => self.log(&l.vertex, &l.data),
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        for id in std::mem::take(&mut self.failed) {
            let Some(step) = self.steps.remove(&id) else {
                continue;
            };
            if step.output.is_empty() {
                continue;
            }
            self.out.push(&format!("------\n > {}:\n", step.name));
            if step.missing > 0 {
                self.out
                    .push(&format!("[the first {} bytes were not kept]\n", step.missing));
            }
            let mut cleaner = Cleaner::default();
            let mut open = false;
            let (first, second) = step.output.as_slices();
            for part in [first, second] {
                cleaner.feed(part, &mut |piece| match piece {
                    Piece::Text(text) => {
                        open = true;
                        self.out.push(text);
                    }
                    Piece::LineEnd => {
                        open = false;
                        self.out.push("\n");
                    }
                });
            }
            self.out.push(if open { "\n------\n" } else { "------\n" });
            self.out.flush()?;
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use bk_build::{LogChunk, LogStream};

    use super::*;

    fn log(quiet: &mut Quiet<Vec<u8>>, id: &str, data: &[u8]) {
        let chunk = LogChunk::new(id.into(), LogStream::Stdout, data.to_vec());
        quiet
            .event(&BuildEvent::Log(chunk))
            .expect("a vector takes everything");
    }

    fn vertex(quiet: &mut Quiet<Vec<u8>>, id: &str, event: fn(Vertex) -> BuildEvent, error: Option<&str>) {
        let mut v = Vertex::new(id, format!("RUN {id}"));
        v.error = error.map(str::to_owned);
        quiet.event(&event(v)).expect("a vector takes everything");
    }

    fn drawn(mut quiet: Quiet<Vec<u8>>) -> String {
        assert!(quiet.out.inner().is_empty(), "nothing before the end");
        quiet.finish().expect("a vector takes everything");
        String::from_utf8(quiet.out.inner().clone()).expect("only UTF-8 is drawn")
    }

    #[test]
    fn only_steps_that_failed_by_themselves_are_shown() {
        let mut quiet = Quiet::new(Vec::new());
        for id in ["good", "bad", "stopped", "retried"] {
            vertex(&mut quiet, id, BuildEvent::VertexStarted, None);
            log(&mut quiet, id, b"line\n\x1b[31mred");
        }
        vertex(&mut quiet, "good", BuildEvent::VertexCompleted, None);
        vertex(&mut quiet, "bad", BuildEvent::VertexFailed, Some("exit code: 1"));
        vertex(
            &mut quiet,
            "stopped",
            BuildEvent::VertexFailed,
            Some("context canceled"),
        );
        vertex(
            &mut quiet,
            "retried",
            BuildEvent::VertexFailed,
            Some("exit code: 1"),
        );
        vertex(&mut quiet, "retried", BuildEvent::VertexStarted, None);
        vertex(&mut quiet, "retried", BuildEvent::VertexCompleted, None);
        assert_eq!(quiet.held, 13);
        assert_eq!(drawn(quiet), "------\n > RUN bad:\nline\nred\n------\n");
    }

    #[test]
    fn the_end_of_long_output_is_kept() {
        let mut quiet = Quiet::new(Vec::new());
        for n in 0..12 {
            vertex(&mut quiet, &n.to_string(), BuildEvent::VertexStarted, None);
            for _ in 0..5 {
                log(&mut quiet, &n.to_string(), &vec![b'x'; 1 << 20]);
            }
            log(&mut quiet, &n.to_string(), b"\nthe end\n");
            let held: usize = quiet.steps.values().map(|s| s.output.len()).sum();
            assert_eq!(held, quiet.held);
            assert!(held <= QUIET_BYTES + QUIET_STEP_BYTES);
        }
        vertex(&mut quiet, "11", BuildEvent::VertexFailed, Some("exit code: 1"));
        let drawn = drawn(quiet);
        let missing = (5 << 20) + 9 - QUIET_STEP_BYTES;
        assert!(drawn.starts_with(&format!(
            "------\n > RUN 11:\n[the first {missing} bytes were not kept]\nxx"
        )));
        assert!(drawn.ends_with("x\nthe end\n------\n"));
    }
}
