//! The events of several builds in one display, each with the name of its target.
//!
//! The rule: names of steps begin with the target's name, as `docker buildx bake` writes them, and in a display of lines a step
//! that two targets share is shown for each.

use std::{collections::BTreeSet, future::poll_fn, io, pin::pin, sync::Arc, task::Poll, time::Instant};

use bk_client::{BuildEvent, EventReceiver, EventSink, Vertex, VertexId, WarningKind};
use bk_progress::{Mode, Renderer};
use tokio::{runtime::Handle, sync::mpsc};

/// Makes a sink for each target. The display ends when this and all sinks are gone.
pub(crate) struct Stage {
    begun: mpsc::Sender<(String, EventReceiver)>,
}

/// What draws on a thread of its own.
pub(crate) struct Display {
    begun: mpsc::Receiver<(String, EventReceiver)>,
    /// Whether more can begin.
    open: bool,
    live: Vec<(Arc<str>, EventReceiver)>,
    /// Whose turn it is to be looked at first, so that nobody starves.
    turn: usize,
    /// Whether names are put before steps, and keys before those of the daemon.
    labels: bool,
    keys: bool,
    told_builder: bool,
    told_ignored: BTreeSet<String>,
}

/// A stage and its display for at most `targets` builds.
pub(crate) fn display(targets: usize, mode: Mode) -> (Stage, Display) {
    let (sender, receiver) = mpsc::channel(targets.max(1));
    let display = Display {
        begun: receiver,
        open: true,
        live: Vec::new(),
        turn: 0,
        labels: targets > 1,
        // Programs that read events know steps by the keys of the daemon.
        keys: targets > 1 && !matches!(mode, Mode::Json | Mode::RawJson),
        told_builder: false,
        told_ignored: BTreeSet::new(),
    };
    (Stage { begun: sender }, display)
}

impl Stage {
    /// The sink of a target that begins.
    pub(crate) fn sink(&self, name: &str) -> EventSink {
        let (sink, events) = EventSink::default_channel();
        match self.begun.try_send((name.to_owned(), events)) {
            Ok(()) => sink,
            // The display has ended: nobody looks any more, which does not stop a build.
            Err(_) => EventSink::discard(),
        }
    }
}

impl Display {
    /// Draws until every sink is gone. Blocks; runs on a thread for that.
    pub(crate) fn draw(mut self, mut renderer: Box<dyn Renderer + Send>) -> io::Result<()> {
        let runtime = Handle::current();
        loop {
            let next = runtime
                .block_on(async { tokio::time::timeout(bk_progress::limits::TICK, self.next()).await });
            match next {
                Ok(Some((name, event))) => {
                    if let Some(event) = self.labelled(&name, event) {
                        renderer.event(&event)?;
                    }
                }
                Ok(None) => return renderer.finish(),
                Err(_elapsed) => {}
            }
            renderer.tick(Instant::now())?;
        }
    }

    /// The next event of any target; nothing when all have ended. Safe to drop while waiting.
    async fn next(&mut self) -> Option<(Arc<str>, BuildEvent)> {
        poll_fn(|cx| {
            while self.open {
                match self.begun.poll_recv(cx) {
                    Poll::Ready(Some((name, events))) => self.live.push((name.into(), events)),
                    Poll::Ready(None) => self.open = false,
                    Poll::Pending => break,
                }
            }
            let mut looked = 0;
            while looked < self.live.len() {
                let at = (self.turn + looked) % self.live.len();
                let Some((name, events)) = self.live.get_mut(at) else {
                    break;
                };
                let polled = pin!(events.recv()).poll(cx);
                match polled {
                    Poll::Ready(Some(event)) => {
                        let name = name.clone();
                        self.turn = at + 1;
                        return Poll::Ready(Some((name, event)));
                    }
                    Poll::Ready(None) => drop(self.live.swap_remove(at)),
                    Poll::Pending => looked += 1,
                }
            }
            match self.open || !self.live.is_empty() {
                true => Poll::Pending,
                false => Poll::Ready(None),
            }
        })
        .await
    }

    /// The event as the display shows it; nothing for one that would be said once for each target.
    fn labelled(&mut self, target: &str, mut event: BuildEvent) -> Option<BuildEvent> {
        if let BuildEvent::Warning(w) = &event
            && matches!(w.kind, WarningKind::IgnoreFile { .. })
        {
            // Targets share contexts, and the file is the same for all of them.
            return self.told_ignored.insert(w.short.clone()).then_some(event);
        }
        let (labels, keys) = (self.labels, self.keys);
        let key = |id: &mut VertexId| {
            if keys {
                *id = format!("{target}/{id}").into();
            }
        };
        let vertex = |v: &mut Vertex| {
            key(&mut v.id);
            v.inputs.iter_mut().for_each(key);
            if let Some(group) = v.group.as_mut().filter(|_| keys) {
                group.id = format!("{target}/{}", group.id);
            }
            if labels {
                v.name = label(target, &v.name);
                if let Some(group) = &mut v.group {
                    group.name = label(target, &group.name);
                }
            }
        };
        match &mut event {
            BuildEvent::Started { .. } if std::mem::replace(&mut self.told_builder, true) => return None,
            BuildEvent::VertexQueued(v)
            | BuildEvent::VertexStarted(v)
            | BuildEvent::VertexCached(v)
            | BuildEvent::VertexCompleted(v)
            | BuildEvent::VertexFailed(v) => vertex(v),
            BuildEvent::Status(s) => key(&mut s.vertex),
            BuildEvent::Log(l) => key(&mut l.vertex),
            BuildEvent::Warning(w) => match &mut w.vertex {
                Some(id) => key(id),
                None if labels => w.short = format!("{target}: {}", w.short),
                None => {}
            },
            BuildEvent::Retrying { error, .. } if labels => *error = format!("{target}: {error}"),
            _ => {}
        }
        Some(event)
    }
}

/// `[2/3] RUN x` of the target `web` is `[web 2/3] RUN x`, and so is one that says it already, as steps do of their platform.
fn label(target: &str, name: &str) -> String {
    match name.strip_prefix('[') {
        Some(rest)
            if rest
                .strip_prefix(target)
                .is_some_and(|rest| rest.starts_with(' ')) =>
        {
            name.to_owned()
        }
        Some(rest) => format!("[{target} {rest}"),
        None => format!("[{target}] {name}"),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        sync::{Mutex, PoisonError},
    };

    use bk_client::Warning;

    use super::*;

    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<Vec<u8>>>);

    impl Write for Screen {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend_from_slice(data);
            Ok(data.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    async fn drawn(targets: &[&str], mode: Mode) -> String {
        let screen = Screen::default();
        let (stage, display) = display(targets.len(), mode);
        let renderer = mode.renderer(screen.clone(), &bk_progress::Output::default());
        let drawing = tokio::task::spawn_blocking(move || display.draw(renderer));
        for name in targets {
            let sink = stage.sink(name);
            let mut vertex = Vertex::new("sha256:1", "[1/2] FROM x");
            vertex.cached = true;
            sink.emit(BuildEvent::VertexCached(vertex)).await;
            let mut vertex = Vertex::new("sha256:2", "exporting");
            vertex.cached = true;
            sink.emit(BuildEvent::VertexCached(vertex)).await;
        }
        drop(stage);
        drawing.await.expect("no panic").expect("drawn");
        let bytes = screen.0.lock().expect("no panic").clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn what_is_wrong_with_an_ignore_file_is_said_once() {
        let (_stage, mut display) = display(2, Mode::Plain);
        let warning = |line| {
            let file = ".dockerignore".to_owned();
            BuildEvent::Warning(Warning::new(
                WarningKind::IgnoreFile { file, line },
                line.to_string(),
            ))
        };
        assert!(display.labelled("web", warning(1)).is_some());
        assert!(display.labelled("db", warning(1)).is_none());
        assert!(display.labelled("db", warning(2)).is_some());
    }

    #[test]
    fn a_platform_that_a_step_names_is_not_said_twice() {
        for (name, shown) in [
            ("[linux/arm64 2/3] RUN x", "[linux/arm64 2/3] RUN x"),
            (
                "[linux/arm64/v9 2/3] RUN x",
                "[linux/arm64 linux/arm64/v9 2/3] RUN x",
            ),
            ("exporting", "[linux/arm64] exporting"),
        ] {
            assert_eq!(label("linux/arm64", name), shown);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn steps_carry_the_name_of_their_target() {
        let text = drawn(&["web", "db"], Mode::Plain).await;
        for line in [
            "[web 1/2] FROM x\n",
            "[web] exporting\n",
            "[db 1/2] FROM x\n",
            "[db] exporting\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(text.contains("#4 CACHED\n"), "{text}");
        let alone = drawn(&["web"], Mode::Plain).await;
        assert_eq!(alone, "#1 [1/2] FROM x\n#1 CACHED\n\n#2 exporting\n#2 CACHED\n");
        let raw = drawn(&["web", "db"], Mode::RawJson).await;
        assert!(raw.contains(r#""digest":"sha256:1""#), "{raw}");
        assert!(raw.contains(r#""name":"[db 1/2] FROM x""#), "{raw}");
    }
}
