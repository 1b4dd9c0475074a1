//! Whole migrations on real servers while the world is written: nothing is lost, damage is found, and every pod can
//! be run again.

mod collecting;
mod endings;
mod faults;
mod flow;
mod hand;
mod proof;
mod values;
mod writer;
