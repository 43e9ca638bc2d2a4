//! One of a thing for each input shape, the last used kept.

use image::RgbImage;

/// Width and height of a network's input.
pub(crate) type Shape = (usize, usize);

/// Things that are kept at once: images of a camera, a folder or a data set have few shapes, and each engine holds its own
/// feature maps.
const MOST_SHAPES: usize = 8;

/// Made when a shape is first seen, the last used first; beyond [`MOST_SHAPES`] the one that was used least recently goes.
pub(crate) struct ByShape<T>(Vec<(Shape, T)>);

/// With none.
impl<T> Default for ByShape<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> ByShape<T> {
    /// With what is made for `shape` already.
    pub(crate) fn new(shape: Shape, made: T) -> Self {
        Self(vec![(shape, made)])
    }

    /// What is there for `shape`, or is made now.
    pub(crate) fn get<E>(&mut self, shape: Shape, make: impl FnOnce() -> Result<T, E>) -> Result<&mut T, E> {
        match self.0.iter().position(|(made_for, _)| *made_for == shape) {
            Some(at) => self.0[..=at].rotate_right(1),
            None => {
                let made = make()?;
                self.0.truncate(MOST_SHAPES - 1);
                self.0.insert(0, (shape, made));
            }
        }
        Ok(&mut self.0[0].1)
    }

    /// The same where making it is waited for.
    #[cfg(feature = "gpu")]
    pub(crate) async fn get_async<E>(
        &mut self,
        shape: Shape,
        make: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<&mut T, E> {
        if self.0.iter().all(|(made_for, _)| *made_for != shape) {
            let made = make().await?;
            return self.get(shape, || Ok(made));
        }
        self.get(shape, || unreachable!("it is there"))
    }

    /// The shape and the thing that were used last.
    #[cfg(any(feature = "gpu", test))]
    pub(crate) fn last(&mut self) -> (Shape, &mut T) {
        let (shape, made) = &mut self.0[0];
        (*shape, made)
    }

    /// As [`ByShape::last`], to look at.
    pub(crate) fn latest(&self) -> &T {
        &self.0[0].1
    }

    /// All of them.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().map(|(_, made)| made)
    }
}

/// Images of one input shape go through `detect` together, the shape of the first image last: what is kept of a batch is
/// of that one. `detect` also learns which place in `images` each of its images has.
pub(crate) fn each_shape<E>(
    images: &[&RgbImage],
    shape_of: impl Fn((u32, u32)) -> Shape,
    mut detect: impl FnMut(Shape, &[&RgbImage], &dyn Fn(usize) -> usize) -> Result<(), E>,
) -> Result<(), E> {
    let shape = |at: usize| shape_of(images[at].dimensions());
    // As a camera's frames are: no lists are made for them.
    if !images.is_empty() && (1..images.len()).all(|at| shape(at) == shape(0)) {
        return detect(shape(0), images, &|at| at);
    }
    for (shape, places) in places_by_shape(images, &shape_of) {
        let same: Vec<&RgbImage> = places.iter().map(|&place| images[place]).collect();
        detect(shape, &same, &|at| places[at])?;
    }
    Ok(())
}

/// The input shapes of images with the places of those that have them, the shape of the first image last.
pub(crate) fn places_by_shape(
    images: &[&RgbImage],
    shape_of: impl Fn((u32, u32)) -> Shape,
) -> Vec<(Shape, Vec<usize>)> {
    let mut groups: Vec<(Shape, Vec<usize>)> = Vec::new();
    for (place, image) in images.iter().enumerate() {
        let shape = shape_of(image.dimensions());
        match groups.iter_mut().find(|(other, _)| *other == shape) {
            Some((_, places)) => places.push(place),
            None => groups.push((shape, vec![place])),
        }
    }
    groups.reverse();
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_least_recently_goes_first() {
        let mut made = Vec::new();
        let mut kept = ByShape::new((0, 0), 0);
        let mut use_shape = |kept: &mut ByShape<usize>, width: usize| {
            let value = kept.get((width, 0), || {
                Ok::<_, ()>({
                    made.push(width);
                    width
                })
            });
            assert_eq!(value, Ok(&mut { width }));
        };
        (1..MOST_SHAPES).for_each(|width| use_shape(&mut kept, width));
        // The oldest is used again: the second oldest goes.
        use_shape(&mut kept, 0);
        use_shape(&mut kept, 100);
        use_shape(&mut kept, 0);
        use_shape(&mut kept, 1);
        assert_eq!(made, (1..MOST_SHAPES).chain([100, 1]).collect::<Vec<_>>());
        assert_eq!(kept.0.len(), MOST_SHAPES);
        assert!(kept.get((7, 7), || Err("no memory")).is_err() && kept.last() == ((1, 0), &mut 1));
    }

    #[test]
    fn images_of_one_shape_are_computed_together_and_the_first_shape_last() {
        let images = [2, 1, 2].map(|side| RgbImage::new(side, 1));
        let mut groups = Vec::new();
        let shape_of = |(width, height): (u32, u32)| (width as usize, height as usize);
        let found = each_shape(&images.each_ref(), shape_of, |shape, images, place| {
            groups.push((shape, (0..images.len()).map(place).collect::<Vec<_>>()));
            Ok::<_, ()>(())
        });
        assert_eq!((found, groups), (Ok(()), vec![((1, 1), vec![1]), ((2, 1), vec![0, 2])]));
    }
}
