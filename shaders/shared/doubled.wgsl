// Planes of half the resolution, each of whose values stands for four. The lowest bit of their place marks them: planes begin at
// whole vec4s.

/// Whether there may be any.
override DOUBLED: bool = false;

/// Where column x and row y of a plane lies that has, or stands for one that has, `width` columns.
fn place_of(plane: u32, x: u32, y: u32, width: u32) -> u32 {
    let shift = select(0u, plane & 1u, DOUBLED);
    return plane - shift + (y >> shift) * (width >> shift) + (x >> shift);
}
