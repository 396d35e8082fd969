//! The protocol engine on a simulated network: what is promised holds whatever the network and the
//! members do. `world` is the simulation. `make soak` runs more seeds.

mod clocks;
mod counters;
mod cuts;
mod ledger;
mod messages;
mod reads;
mod replicas;
mod sums;
mod table;
mod takes;
mod watches;
mod world;
