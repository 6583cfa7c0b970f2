//! Sequences of operations on library and software card, with faults.
//!
//! Everything is drawn from the input: what is on the card, the link, each operation and what goes
//! wrong in it. Most draws depend on what the model knows, so that an input that is changed
//! somewhere still does things that make sense.
//!
//! Oracle: the model of `tests/model.rs`, which says beforehand what must come of each operation, what
//! the card must hold afterwards, and what the session must say of itself.

use std::cell::Cell;
use std::rc::Rc;

use crate::input;
use crate::model::draw::{self, Dice};
use crate::model::ops::Step;
use crate::model::world::World;

/// Longer sequences show nothing that shorter ones do not.
const MAX_STEPS: usize = 200;

/// Draws.
pub fn run(data: &[u8]) {
    let over = Rc::new(Cell::new(data.is_empty()));
    let mut dice = {
        let (data, over) = (data.to_vec(), Rc::clone(&over));
        let mut at = 0;
        Dice::of(move |end| {
            let drawn = input::draw(&data, &mut at, end);
            over.set(at >= data.len());
            drawn
        })
    };
    let kept = draw::kept(&mut dice);
    let format = draw::format(&mut dice);
    let mut world = World::new(kept, format).expect("a card that can be");
    let mut steps = Vec::new();
    while !over.get() && steps.len() < MAX_STEPS {
        let step = draw::step(&mut dice, &world.card, &world.reader);
        steps.push(step);
        judge(&steps, world.step(&step));
    }
    for op in draw::audit(&world.card) {
        let step = Step { op, fault: None };
        judge(
            &steps,
            world
                .step(&step)
                .map_err(|why| format!("reading {op:?}: {why}")),
        );
    }
}

fn judge(steps: &[Step], verdict: Result<(), String>) {
    if let Err(why) = verdict {
        let text: Vec<String> = steps.iter().map(|step| format!("    {step:?}\n")).collect();
        panic!(
            "card, library and model part ways: {why}\n{}",
            text.concat()
        );
    }
}

/// An input whose operations have these command codes, in this order, as far as the model ever draws
/// one where it stands.
pub fn seed(codes: &[u8], seed: u64) -> Vec<u8> {
    let written = Rc::new(Cell::new(Vec::new()));
    let mut random = Dice::new(seed);
    let mut dice = {
        let written = Rc::clone(&written);
        Dice::of(move |end| {
            let drawn = u64::from(random.below(u32::try_from(end).expect("32 bits")));
            let mut bytes = written.take();
            input::put_draw(&mut bytes, drawn, end);
            written.set(bytes);
            drawn
        })
    };
    let kept = draw::kept(&mut dice);
    let format = draw::format(&mut dice);
    let mut world = World::new(kept, format).expect("a card that can be");
    for code in codes {
        for _ in 0..3000 {
            let before = written.take();
            written.set(before.clone());
            let step = draw::step(&mut dice, &world.card, &world.reader);
            if step.op.code().map(|code| code.to_byte()) == Some(*code) {
                world.step(&step).expect("the model agrees");
                break;
            }
            written.set(before);
        }
    }
    written.take()
}
