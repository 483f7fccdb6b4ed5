//! What is drawn, and that it stays small and harmless.

use super::{Blocks, Chart, Division, blocks, page};
use crate::fixtures::{World, segment};
use crate::targets::report;

const MB: u64 = 1 << 20;
const HOUR: i64 = 3600;

fn name(timeline: u32, number: u64) -> String {
    format!("{timeline:08X}{:08X}{:08X}", number / 4096, number % 4096)
}

/// Two timelines, a hole, a base backup, a restore point with a name that is none of ours.
fn world() -> World {
    World::of([
        segment(&name(1, 1))
            .with_backup_end(MB + 40)
            .with_end(HOUR, 700),
        segment(&name(1, 2))
            .with_end(2 * HOUR, 701)
            .with_point("<script>alert('\"&\u{202E}')</script>", 2 * HOUR),
        segment(&name(1, 4)).with_end(9 * HOUR, 702),
        segment(&name(2, 2)).with_end(3 * HOUR, 703),
        segment(&name(2, 3)).with_end(4 * HOUR, 704),
    ])
    .with_history(2, "1\t0/200428\tbefore <b>2000</b>\n")
    .with_backup(1, MB + 40, MB + 40 + 1024)
}

fn page_of(world: &World) -> String {
    page(
        &Chart::of(&world.survey, Division::Round),
        &report(&world.survey),
    )
}

#[test]
fn what_comes_out_of_wal_is_text_on_the_page_and_never_markup() {
    let page = page_of(&world());
    assert!(!page.contains("<script>alert"), "{page}");
    assert!(!page.contains("<b>2000"), "{page}");
    assert!(!page.contains('\u{202E}'), "{page}");
    assert!(
        page.contains("&lt;script&gt;alert(&#39;&quot;&amp;\\u{202e}&#39;)&lt;/script&gt;"),
        "{page}"
    );
}

#[test]
fn the_page_needs_nothing_else() {
    let page = page_of(&world());
    for word in ["http://", "https://", "src=", "@import", "<link", "url(//"] {
        assert!(!page.contains(word), "{word} in {page}");
    }
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn a_page_shows_lanes_holes_backups_points_and_switches_and_names_each() {
    let page = page_of(&world());
    for part in [
        "timeline 1: WAL from 2000-01-01 01:00:00+00",
        "timeline 1: segment &quot;000000010000000000000003&quot; is missing",
        "timeline 2: WAL from",
        "timeline 2 left 1 at 0/200428",
        "base backup &quot;made&quot;",
        "There is a hole in it",
    ] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    // Everything that can have the focus has a name.
    assert_eq!(
        page.matches("tabindex=\"0\"").count(),
        page.matches("tabindex=\"0\" role=\"img\" aria-label=\"t")
            .count()
    );
}

#[test]
fn blocks_fit_the_terminal_and_show_the_same() {
    let how = Blocks {
        width: 60,
        ascii: false,
    };
    let text = blocks(&world().survey, how);
    let lanes: Vec<&str> = text.split("\n\n").next().unwrap().lines().collect();
    assert!(
        lanes.iter().all(|line| line.chars().count() <= 60),
        "{text}"
    );
    assert!(
        lanes[1].starts_with("1 ") && lanes[1].contains('╳') && lanes[1].contains('█'),
        "{text}"
    );
    assert!(lanes[2].contains('▲') && lanes[2].contains('◆'), "{text}");
    assert!(lanes[4].contains('└'), "{text}");
    assert!(
        text.contains("segment \"000000010000000000000003\" is missing"),
        "{text}"
    );
    assert!(!text.contains('\u{202E}'), "{text}");
    let ascii = blocks(&world().survey, Blocks { ascii: true, ..how });
    assert!(ascii.is_ascii(), "{ascii}");
}

#[test]
fn the_head_of_the_blocks_is_told_to_the_second_and_the_legend_fits() {
    for width in [40, 60, 80, 200] {
        let how = Blocks {
            width,
            ascii: false,
        };
        let text = blocks(&world().survey, how);
        assert!(
            text.lines().next().unwrap().len() <= width.max(62),
            "{text}"
        );
        let legend = text.lines().skip_while(|line| !line.is_empty()).skip(1);
        let legend: Vec<&str> = legend.take_while(|line| !line.starts_with("╳ t")).collect();
        let length = |line: &&str| line.chars().count();
        assert!(legend.iter().map(length).max() <= Some(width), "{text}");
    }
    let text = blocks(
        &world().survey,
        Blocks {
            width: 77,
            ascii: false,
        },
    );
    assert!(!text.lines().next().unwrap().contains('.'), "{text}");
}

#[test]
fn signs_do_not_cover_one_another_and_are_counted() {
    let mut made = vec![segment(&name(1, 1)).with_end(0, 700)];
    for number in 2..=200_u64 {
        let second = i64::try_from(number).unwrap() * 60;
        made.push(segment(&name(1, number)).with_point("again", second));
    }
    let chart = Chart::of(&World::of(made).survey, Division::Round);
    let points = &chart.lanes[0].points;
    let places: Vec<f64> = points
        .iter()
        .map(|point| chart.position(point.until))
        .collect();
    assert!(points.len() > 20, "{points:?}");
    assert!(
        places.windows(2).all(|two| two[1] - two[0] >= 24.0 / 976.0),
        "{places:?}"
    );
    assert_eq!(points.iter().map(|point| point.count).sum::<u64>(), 199);
}

#[test]
fn holes_are_counted_and_a_reason_is_told_once() {
    let mut world =
        World::of((1..=9).map(|number| {
            segment(&name(2, 2 * number)).with_end(i64::try_from(number).unwrap(), 700)
        }));
    world = world.with_history(2, "1\t0/200000\tbecause of it\n");
    // All at once, so that they are drawn as one.
    let page = page_of(&world);
    assert!(page.contains("There are holes in it"), "{page}");
    let (picture, tables) = page.split_once("<h2>Timelines").unwrap();
    assert_eq!(picture.matches("because of it").count(), 2, "{picture}");
    assert_eq!(tables.matches("because of it").count(), 1, "{tables}");
}

#[test]
fn an_empty_archive_is_drawn_as_such() {
    let world = World::of([]);
    assert!(page_of(&world).contains("It holds no WAL."));
    let how = Blocks {
        width: 80,
        ascii: false,
    };
    assert_eq!(blocks(&world.survey, how), "no WAL in \"\"\n");
}

#[test]
fn a_big_archive_makes_no_big_page() {
    let segments = (1..=3000).map(|number| {
        let second = i64::try_from(number).unwrap() * HOUR;
        let made = segment(&name(1, number + number / 10)).with_end(second, 700);
        made.with_point("again and again", second)
            .with_point("and again", second)
    });
    let mut world = World::of(segments);
    for number in 1..=200 {
        world = world.with_backup(1, number * 11 * MB + 40, number * 11 * MB + 1064);
    }
    for timeline in 2..=100 {
        world = world.with_history(timeline, "1\t0/200428\tno recovery target specified\n");
    }
    let page = page_of(&world);
    assert!(page.len() < 2_000_000, "{} bytes", page.len());
    let lines = blocks(
        &world.survey,
        Blocks {
            width: 80,
            ascii: false,
        },
    )
    .lines()
    .count();
    assert!(lines < 500, "{lines} lines");
}
