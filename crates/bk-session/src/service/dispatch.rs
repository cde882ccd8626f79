//! From a request's path to its service. Whatever is not served answers `Unimplemented`, which daemons rely on: it
//! means "no such credentials, secret or key" to them, not a failure.
//!
//! The rule: a method is announced only if something answers it, so both come from one list.

use std::{collections::BTreeMap, convert::Infallible, pin::Pin, sync::Arc};

use hyper::body::Incoming;
use tonic::{Status, body::Body};
use tower_service::Service;

/// All services of one session. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Dispatch {
    services: Arc<BTreeMap<&'static str, Registered>>,
}

/// A service and what it answers.
struct Registered {
    methods: &'static [&'static str],
    handler: Box<dyn Handler>,
}

type BoxFuture = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

/// A generated server, whatever its type.
trait Handler: Send + Sync {
    fn call(&self, request: http::Request<Incoming>) -> BoxFuture;
}

impl<S> Handler for S
where
    S: Service<
            http::Request<Incoming>,
            Response = http::Response<Body>,
            Error = Infallible,
            Future = BoxFuture,
        > + Clone
        + Send
        + Sync,
{
    fn call(&self, request: http::Request<Incoming>) -> BoxFuture {
        Service::call(&mut self.clone(), request)
    }
}

/// Collects the services of a session.
#[derive(Default)]
pub(crate) struct Services(BTreeMap<&'static str, Registered>);

impl Services {
    /// Serves `methods`, each without its service, of the service `name` by `server`.
    pub(crate) fn add<S>(&mut self, name: &'static str, methods: &'static [&'static str], server: S)
    where
        S: Service<
                http::Request<Incoming>,
                Response = http::Response<Body>,
                Error = Infallible,
                Future = BoxFuture,
            > + Clone
            + Send
            + Sync
            + 'static,
    {
        let handler = Box::new(server);
        self.0.insert(name, Registered { methods, handler });
    }

    pub(crate) fn finish(self) -> Dispatch {
        Dispatch {
            services: Arc::new(self.0),
        }
    }
}

impl Dispatch {
    /// Every method that is answered, as the daemon wants them announced: one value each, in byte order.
    pub(crate) fn methods(&self) -> impl Iterator<Item = String> {
        self.services
            .iter()
            .flat_map(|(name, s)| s.methods.iter().map(move |m| format!("/{name}/{m}")))
    }
}

impl hyper::service::Service<http::Request<Incoming>> for Dispatch {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        let path = request.uri().path();
        let service = path
            .strip_prefix('/')
            .and_then(|p| p.split_once('/'))
            .map_or("", |(s, _)| s);
        if let Some(found) = self.services.get(service) {
            return found.handler.call(request);
        }
        let status = Status::unimplemented(format!("{path} is not served by this session"));
        Box::pin(async move { Ok(status.into_http()) })
    }
}
