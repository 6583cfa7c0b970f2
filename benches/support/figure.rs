//! Pictures of measured numbers, as SVG that can be read on a white and on a black page.

pub struct Bar {
    pub group: String,
    pub name: String,
    pub value: f64,
    pub missed: bool,
}

pub fn write_floor(_path: &str, _bars: &[Bar]) {}
