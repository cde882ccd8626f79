//! `tracing` spans as a test sees them: those of the library that have ended, with their parents and fields.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
};

use tracing::{
    Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
    subscriber::DefaultGuard,
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
};

use crate::fake::locked;

/// What the names of the library's spans begin with.
const OURS: &str = "bk.";

/// A span that has ended.
#[derive(Clone, Debug, Default)]
pub struct Ended {
    /// Its name.
    pub name: &'static str,
    /// The name of the span that it was in.
    pub parent: Option<&'static str>,
    /// Its fields as text.
    pub fields: BTreeMap<&'static str, String>,
}

/// Keeps the library's spans that have ended, in that order.
#[derive(Clone, Debug, Default)]
pub struct Spans(Arc<Mutex<Vec<Ended>>>);

/// Keeps the spans of this thread until the guard is dropped: for tests on a runtime of one thread.
pub fn watch() -> (Spans, DefaultGuard) {
    let spans = Spans::default();
    let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(spans.clone()));
    (spans, guard)
}

/// `parent/name` of each, sorted, each once.
pub fn tree(spans: &[Ended]) -> Vec<String> {
    let named = |span: &Ended| format!("{}/{}", span.parent.unwrap_or(""), span.name);
    let mut all: Vec<_> = spans.iter().map(named).collect();
    all.sort();
    all.dedup();
    all
}

impl Spans {
    /// Those that have ended since the last call.
    pub fn take(&self) -> Vec<Ended> {
        std::mem::take(&mut *locked(&self.0))
    }
}

struct Fields<'a>(&'a mut BTreeMap<&'static str, String>);

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut ended = Ended {
            name: span.name(),
            parent: span.parent().map(|p| p.name()),
            ..Ended::default()
        };
        attributes.record(&mut Fields(&mut ended.fields));
        span.extensions_mut().insert(ended);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(ended) = span.extensions_mut().get_mut::<Ended>() {
            values.record(&mut Fields(&mut ended.fields));
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let ended = span.extensions().get::<Ended>().cloned();
        locked(&self.0).extend(ended.filter(|e| e.name.starts_with(OURS)));
    }
}
