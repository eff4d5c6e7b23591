//! Brings the kernel's routes to what is wanted, at run time and at the end.

use super::{RETRY, Task, by};
use crate::error::Error;
use crate::mirror::WantedRoutes;
use crate::mirror::install::{self, Operation};
use crate::netlink::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::RouteNetlinkMessage as Request;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::sync::oneshot;
use tracing::{debug, info, warn};

/// Rounds of removing our routes before giving up on shutdown.
const SHUTDOWN_ROUNDS: usize = 3;

impl Task {
    /// Install and remove our routes until the kernel has what is wanted.
    pub(super) async fn reconcile(&mut self) {
        let wanted = self.inputs.routes.borrow_and_update().clone();
        let mut operations = install::plan(&self.view.routes, &wanted, &self.view.links);
        if !operations.is_empty() && self.due.routes.take().is_some() {
            // Decide on what is there now, not on what was before our last operations.
            match self.dump_routes().await {
                Ok(dump) => {
                    if self.view.replace_routes(dump) {
                        self.publish_soon(Instant::now());
                    }
                    operations = install::plan(&self.view.routes, &wanted, &self.view.links);
                }
                Err(error) => {
                    debug!(%error, "routes not read");
                    by(&mut self.due.reconcile, Instant::now() + RETRY);
                    return;
                }
            }
        }
        let now = Instant::now();
        let mut failed = 0;
        for operation in &operations {
            if let Some((until, has_failed)) = self.attempts.wait(operation, now) {
                by(&mut self.due.reconcile, until);
                failed += u64::from(has_failed);
                continue;
            }
            let outcome = self.perform(operation).await;
            let first = self.attempts.note(operation, outcome.is_err(), now);
            if let Err(error) = outcome {
                failed += 1;
                by(&mut self.due.reconcile, now + RETRY);
                let (source, prefix) = operation.key();
                if first {
                    warn!(?source, %prefix, %error, "route not installed; trying again");
                }
            }
            // The events of what we did say the same; this makes the next reconciliation see it.
            by(&mut self.due.routes, now.max(self.routes_not_before));
        }
        self.attempts.forget(&operations, now);
        self.shared.install_failed.store(failed, Ordering::Relaxed);
    }

    async fn perform(&mut self, operation: &Operation) -> Result<(), Error> {
        let message = install::message(operation);
        let (what, request, flags) = match operation {
            Operation::Delete { .. } => ("remove a route", Request::DelRoute(message), 0),
            // Never over a route that is not ours.
            Operation::Put { replace: false, .. } => {
                ("add a route", Request::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
            }
            Operation::Put { .. } => {
                ("replace a route", Request::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
            }
        };
        match self.netlink.request(what, request, flags).await {
            // It went by itself in the meantime.
            Err(error)
                if matches!(operation, Operation::Delete { .. })
                    && error.errno() == Some(libc::ESRCH) =>
            {
                Ok(())
            }
            outcome => outcome.map(|_| ()),
        }
    }

    /// Remove all our routes, and end.
    pub(super) async fn finish(mut self, done: Option<oneshot::Sender<()>>) {
        for _ in 0..SHUTDOWN_ROUNDS {
            let Ok(dump) = self.dump_routes().await else {
                continue;
            };
            self.view.replace_routes(dump);
            let operations =
                install::plan(&self.view.routes, &WantedRoutes::new(), &self.view.links);
            if operations.is_empty() {
                break;
            }
            info!(routes = operations.len(), "removing our routes from the kernel");
            for operation in &operations {
                if let Err(error) = self.perform(operation).await {
                    let (_, prefix) = operation.key();
                    warn!(%prefix, %error, "route not removed");
                }
            }
        }
        if let Some(done) = done {
            // Whoever asked may have stopped waiting.
            let _ = done.send(());
        }
    }
}
