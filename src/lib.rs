//! yolo-lat: object detection on ordinary computers with exact linear attention.
//!
//! One description of the network ([`model::Graph`]), executed by several engines, with data flowing one way.

pub mod attention;
pub mod engine;
pub mod model;
