//! Where the parts of a picture are, for a wide window and for a narrow one. A page has each picture twice and
//! shows the one that fits: a single one would have to shrink its text.

/// The measures of a picture, in pixels.
pub(super) struct Frame {
    /// Class of the picture, by which the page's style chooses.
    pub(super) class: &'static str,
    pub(super) width: f64,
    /// The left and right ends of the plot of lines.
    pub(super) left: f64,
    pub(super) right: f64,
    /// Whether the names are apart from the plot because there is no room beside it: the legend of lines below
    /// it, the name of a bar above it.
    pub(super) is_narrow: bool,
    /// The left end of the plot of bars.
    pub(super) bars_left: f64,
    /// The distance between two bars.
    pub(super) bar_step: f64,
}

/// Height of the plot of lines; more in a wide window if the legend is longer.
pub(super) const PLOT_HEIGHT: f64 = 352.0;
/// Above the plot.
pub(super) const TOP: f64 = 20.0;
/// Below the plot, for its axis.
pub(super) const BOTTOM: f64 = 48.0;
/// A line of the legend.
pub(super) const ENTRY: f64 = 19.0;

pub(super) const FRAMES: [Frame; 2] = [
    Frame {
        class: "wide",
        width: 960.0,
        left: 76.0,
        right: 720.0,
        is_narrow: false,
        bars_left: 260.0,
        bar_step: 26.0,
    },
    Frame {
        class: "narrow",
        width: 368.0,
        left: 58.0,
        right: 352.0,
        is_narrow: true,
        bars_left: 70.0,
        bar_step: 42.0,
    },
];

impl Frame {
    /// The height of a picture of lines with a legend of this many entries, and the bottom of its plot.
    pub(super) fn lines_height(&self, entries: usize) -> (f64, f64) {
        let legend = ENTRY * entries as f64;
        if self.is_narrow {
            let bottom = TOP + PLOT_HEIGHT;
            (bottom + BOTTOM + legend, bottom)
        } else {
            let bottom = TOP + PLOT_HEIGHT.max(legend);
            (bottom + BOTTOM, bottom)
        }
    }

    /// The left end and the height of an entry of the legend.
    pub(super) fn entry(&self, index: usize, plot_bottom: f64) -> (f64, f64) {
        let down = ENTRY * index as f64 + 6.0;
        if self.is_narrow {
            (8.0, plot_bottom + BOTTOM + down)
        } else {
            (self.right + 16.0, TOP + down)
        }
    }
}
