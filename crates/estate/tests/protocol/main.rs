//! The protocol engine on a simulated network: what is promised holds whatever the network and the
//! members do. `world` is the simulation. `FLOWFERRY_SEEDS=100000 cargo test -p flowferry-estate
//! --test protocol` makes it a soak.

mod cuts;
mod ledger;
mod reads;
mod replicas;
mod sums;
mod takes;
mod watches;
mod world;
