//! The guest's network, as the runtime wants it: interfaces, routes and neighbours by rtnetlink, and the packet filter.
//!
//! Runtimes set up the network before they make the sandbox, so nothing here asks for one. A request is read and checked
//! whole ([`request`]) before any of it is done. What is done is done on the one netlink socket, by one caller at a time,
//! to its end, on a thread where it may wait for the kernel's lock on the network without holding anybody else up.

pub(crate) mod filter;
mod interface;
mod link;
mod netlink;
mod request;
mod route;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use agent_api::types;

use crate::devices::{self, Devices};
use link::Link;
use netlink::Socket;
pub(crate) use request::BadField;
use request::On;

/// The network is not as it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Field(#[from] BadField),
    /// Peers try again for a while when they read the first three words.
    #[error("Link not found: {field}: there is no link {wanted}")]
    NoLink { field: String, wanted: String },
    #[error(transparent)]
    Device(#[from] devices::Error),
    #[error("{step}: {source}")]
    Kernel { step: String, source: io::Error },
}

/// Makes an error of a step that the kernel refused.
fn failed(step: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Kernel { step: step.into(), source }
}

/// The network of the guest.
#[derive(Default)]
pub(crate) struct Network {
    /// Opened at the first request. Locked by a thread that does one request, and by no task.
    socket: Arc<Mutex<Option<Socket>>>,
}

impl Network {
    /// Gives an interface its name, addresses and settings, and brings it up.
    pub(crate) async fn update_interface(
        &self,
        wanted: &types::Interface,
        devices: &Devices,
    ) -> Result<(), Error> {
        let wanted = request::interface(wanted)?;
        let card = match &wanted.card {
            Some(path) => Some(devices.interface(path).await?),
            None => None,
        };
        self.work(move |socket| interface::update(socket, &wanted, card.as_deref())).await
    }

    /// Every interface.
    pub(crate) async fn interfaces(&self) -> Result<Vec<types::Interface>, Error> {
        self.work(|socket| {
            let links = link::all(socket).map_err(failed("list links"))?;
            let addresses = link::addresses(socket).map_err(failed("list addresses"))?;
            Ok(links.iter().map(|link| request::tell_link(link, &addresses)).collect())
        })
        .await
    }

    /// Adds routes, or replaces those to the same networks, and lists all there are then.
    pub(crate) async fn update_routes(&self, wanted: &[types::Route]) -> Result<Vec<types::Route>, Error> {
        let wanted = request::routes(wanted)?;
        self.work(move |socket| {
            let links = link::all(socket).map_err(failed("list links"))?;
            for route in wanted.into_iter().map(|route| route.on(&links)) {
                let (link, mut route) = route?;
                route.link = link.index;
                if route.ipv6 && !interface::has_ipv6(&link.name) {
                    tracing::debug!(link = link.name, "an IPv6 route is left out: IPv6 is off");
                    continue;
                }
                match route::replace(socket, &route) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    replaced => {
                        let shown = request::tell_route(&route, &links);
                        replaced.map_err(failed(format!(
                            "route to {:?} by {:?} on {}",
                            shown.dest, shown.gateway, shown.device
                        )))?;
                    }
                }
            }
            list_routes(socket)
        })
        .await
    }

    /// Every route of the main table.
    pub(crate) async fn routes(&self) -> Result<Vec<types::Route>, Error> {
        self.work(list_routes).await
    }

    /// Adds neighbours, or replaces those with the same addresses.
    pub(crate) async fn add_neighbours(&self, wanted: &[types::ARPNeighbor]) -> Result<(), Error> {
        let wanted = request::neighbours(wanted)?;
        self.work(move |socket| {
            let links = link::all(socket).map_err(failed("list links"))?;
            for neighbour in wanted.into_iter().map(|neighbour| neighbour.on(&links)) {
                let (link, mut neighbour) = neighbour?;
                neighbour.link = link.index;
                if neighbour.ip.is_ipv6() && !interface::has_ipv6(&link.name) {
                    tracing::debug!(link = link.name, "an IPv6 neighbour is left out: IPv6 is off");
                    continue;
                }
                let added = route::add_neighbour(socket, &neighbour);
                added.map_err(failed(format!("neighbour {} on {}", neighbour.ip, link.name)))?;
            }
            Ok(())
        })
        .await
    }

    /// Does something with the socket. It is done to its end even if the caller goes away.
    async fn work<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Socket) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let socket = self.socket.clone();
        let done = tokio::task::spawn_blocking(move || {
            let mut socket = socket.lock().unwrap_or_else(PoisonError::into_inner);
            let socket = match &mut *socket {
                Some(socket) => socket,
                none => none.insert(Socket::open().map_err(failed("open a netlink socket"))?),
            };
            job(socket)
        });
        done.await.unwrap_or_else(|panic| Err(failed("do as asked")(io::Error::other(panic))))
    }
}

fn list_routes(socket: &mut Socket) -> Result<Vec<types::Route>, Error> {
    let links = link::all(socket).map_err(failed("list links"))?;
    let routes = route::all(socket).map_err(failed("list routes"))?;
    Ok(routes.iter().map(|route| request::tell_route(route, &links)).collect())
}

impl<T> On<T> {
    /// What it is about, and its link.
    fn on(self, links: &[Link]) -> Result<(&Link, T), Error> {
        match links.iter().find(|link| link.name == self.device) {
            Some(link) => Ok((link, self.what)),
            None => Err(Error::NoLink { field: self.field, wanted: format!("called {:?}", self.device) }),
        }
    }
}

#[cfg(test)]
mod tests;
