//! Pages as stores give them, and as none should.

use super::*;

const TIME: &str = "<LastModified>2026-11-20T10:00:00.000Z</LastModified>";

fn s3(inside: &str) -> Result<Page, String> {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{inside}</ListBucketResult>\n"
    );
    parse(Dialect::S3, text.as_bytes())
}

fn object(key: &str) -> String {
    format!("<Contents><Key>{key}</Key>{TIME}<ETag>&quot;x&quot;</ETag><Size>7</Size></Contents>")
}

fn names(page: &Page) -> Vec<&str> {
    page.objects.iter().map(|it| it.name.as_str()).collect()
}

#[test]
fn a_page_tells_its_objects_and_where_the_next_one_begins() {
    let page = s3(&format!(
        "<Name>b</Name><Prefix>main/</Prefix><KeyCount>3</KeyCount><IsTruncated>true</IsTruncated>\
         <NextContinuationToken>a&amp;b&#x41;==</NextContinuationToken>{}{}\
         <CommonPrefixes><Prefix>main//</Prefix></CommonPrefixes>",
        object("main/1"),
        object("main/2")
    ))
    .unwrap();
    assert_eq!(names(&page), ["main/1", "main/2"]);
    assert_eq!((page.next.as_deref(), page.odd), (Some("a&bA=="), 0));
    assert_eq!(page.prefix.as_deref(), Some("main/"));
    assert_eq!(page.objects[0].bytes, 7);
    let modified = humantime::format_rfc3339(page.objects[0].modified).to_string();
    assert_eq!(modified, "2026-11-20T10:00:00Z");
    assert_eq!(s3("<IsTruncated>false</IsTruncated>"), Ok(Page::default()));
}

#[test]
fn a_page_of_azure_is_read_too() {
    let text = |next: &str| {
        format!(
            "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ContainerName=\"c\">\
             <Blobs><Blob><Name>main/1</Name><Properties><Last-Modified>Sun, 29 Nov 2026 08:00:00 GMT\
             </Last-Modified><Content-Length>9</Content-Length></Properties></Blob>\
             <BlobPrefix><Name>main/x/</Name></BlobPrefix></Blobs>{next}</EnumerationResults>"
        )
    };
    let page = parse(Dialect::Azure, text("<NextMarker />").as_bytes()).unwrap();
    assert_eq!((names(&page), page.next.as_deref()), (vec!["main/1"], None));
    let modified = humantime::format_rfc3339(page.objects[0].modified).to_string();
    assert_eq!(modified, "2026-11-29T08:00:00Z");
    let page = parse(
        Dialect::Azure,
        text("<NextMarker>2!x</NextMarker>").as_bytes(),
    )
    .unwrap();
    assert_eq!(page.next.as_deref(), Some("2!x"));
    assert!(parse(Dialect::Azure, text("").as_bytes()).is_err());
    for text in [
        "<EnumerationResults><NextMarker/></EnumerationResults>",
        "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>",
    ] {
        assert!(parse(Dialect::Azure, text.as_bytes()).is_err(), "{text}");
    }
    for dialect in [Dialect::S3, Dialect::Azure] {
        assert!(
            parse(dialect, dialect.nothing().as_bytes()).is_ok() == (dialect == Dialect::Azure)
        );
    }
}

#[test]
fn what_is_no_complete_listing_is_none_with_nothing_in_it() {
    for (text, why) in [
        ("", "breaks off"),
        ("{}", "breaks off"),
        ("<Error><Code>SlowDown</Code></Error>", "\"Error\""),
        ("<!DOCTYPE html>\n<html><p>Welcome", "\"html\""),
        ("<ListBucketResult/>", "not a listing"),
        ("<ListBucketResult></ListBucketResult>", "whether more"),
        (
            "<ListVersionsResult><IsTruncated>false</IsTruncated></ListVersionsResult>",
            "not a listing",
        ),
        (
            "<ListBucketResult><IsTruncated>false</IsTruncated>",
            "breaks off",
        ),
        (
            "<ListBucketResult><IsTruncated>false</IsTruncated></Error>",
            "not XML",
        ),
        (
            "<ListBucketResult><IsTruncated></IsTruncated></ListBucketResult>",
            "whether more",
        ),
    ] {
        let error = parse(Dialect::S3, text.as_bytes()).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    }
    for (inside, why) in [
        ("<IsTruncated>true</IsTruncated>", "not where"),
        (
            "<IsTruncated>true</IsTruncated><NextContinuationToken/>",
            "not where",
        ),
        (
            "<IsTruncated>false</IsTruncated><NextContinuationToken>x</NextContinuationToken>",
            "and where",
        ),
        (
            "<IsTruncated>false</IsTruncated><KeyCount>1</KeyCount>",
            "holds 1 keys, and holds 0",
        ),
        (
            "<IsTruncated>false</IsTruncated><KeyCount>many</KeyCount>",
            "not a number",
        ),
        (
            "<IsTruncated>false</IsTruncated><Contents><Key>a</Key></Contents>",
            "without a size",
        ),
    ] {
        let error = s3(inside).unwrap_err();
        assert!(error.contains(why), "{inside}: {error}");
    }
    let deep = "<a>".repeat(DEPTH_MAX + 1);
    assert!(s3(&deep).unwrap_err().contains("form of a listing"));
}

#[test]
fn names_that_no_archive_uses_are_left_out_and_stop_nothing() {
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    let longer = "x".repeat(TEXT_BYTES_MAX + 1);
    let odd = [
        "p//x",
        "p/.",
        "..",
        "",
        "p/&#1;",
        "p/&#x0;",
        "p/&#xFFFFFF;",
        "p/&unknown;",
        "p/\u{1b}[2J",
        "p/\u{202e}gpj",
        &long,
        &longer,
    ];
    let mut inside = "<IsTruncated>false</IsTruncated>".to_owned();
    for name in odd {
        inside += &format!("<Contents><Key>{name}</Key></Contents>");
    }
    inside += &object("p/good");
    let page = s3(&inside).unwrap();
    assert_eq!((names(&page), page.odd), (vec!["p/good"], odd.len() as u64));
}

#[test]
fn what_a_page_is_said_to_be_is_printable() {
    let text = "<Err\u{1b}[2J\u{202e}or></Err\u{1b}[2J\u{202e}or>";
    let error = parse(Dialect::S3, text.as_bytes()).unwrap_err();
    assert!(
        error.chars().all(|c| c.is_ascii() && !c.is_ascii_control()),
        "{error:?}"
    );
}
