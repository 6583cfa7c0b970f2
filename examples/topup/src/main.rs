//! Server, phone and card in one go.

fn main() {}
