//! The browser and the operating system that a `User-Agent` header names, in words for a list of sessions.
//!
//! A table of today's families is enough for that: its rows are in the order of precedence, because browsers also
//! send the names of those that they are derived from. `client_info.rs` calls this.

/// The browsers, by the products that they send.
const BROWSERS: [(&str, &[&str]); 14] = [
    ("Edge", &["Edg/", "EdgA/", "EdgiOS/", "Edge/"]),
    ("Opera", &["OPR/", "OPT/", "OPX/", "Opera/", "Opera Mini/"]),
    ("Samsung Internet", &["SamsungBrowser/"]),
    ("Vivaldi", &["Vivaldi/"]),
    ("Yandex Browser", &["YaBrowser/"]),
    ("DuckDuckGo", &["DuckDuckGo/", "Ddg/"]),
    ("UC Browser", &["UCBrowser/"]),
    ("Facebook", &["FBAV/", "FBAN/"]),
    ("Instagram", &["Instagram "]),
    ("Google app", &["GSA/"]),
    ("Firefox", &["Firefox/", "FxiOS/", "Focus/"]),
    ("Chrome", &["Chrome/", "CriOS/", "Chromium/"]),
    ("Safari", &["Safari/"]),
    ("Internet Explorer", &["MSIE ", "Trident/"]),
];

/// The operating systems. Windows 11 calls itself `Windows NT 10.0`, so no version can be told.
const SYSTEMS: [(&str, &[&str]); 12] = [
    ("iPhone", &["iPhone", "iPod"]),
    ("iPad", &["iPad"]),
    ("Xbox", &["Xbox"]),
    ("Windows", &["Windows"]),
    ("a television", &["SMART-TV", "SmartTV", "Tizen", "Web0S", "AppleTV", "GoogleTV", "AFTS", "BRAVIA"]),
    ("Android", &["Android"]),
    ("ChromeOS", &["CrOS"]),
    ("macOS", &["Macintosh", "Mac OS X"]),
    ("PlayStation", &["PlayStation", "PLAYSTATION"]),
    ("Nintendo", &["Nintendo"]),
    ("Linux", &["Linux", "Ubuntu", "Fedora"]),
    ("BSD", &["FreeBSD", "OpenBSD", "NetBSD"]),
];

/// Describes the client, such as `Firefox on Linux`, as far as its user agent names it.
pub fn describe(user_agent: &str) -> String {
    let browser = if is_program(user_agent) { Some("A program") } else { find(&BROWSERS, user_agent) };
    match (browser, find(&SYSTEMS, user_agent)) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => "Unknown device".to_owned(),
    }
}

/// The first family of which the user agent contains a name.
fn find(families: &[(&'static str, &[&str])], user_agent: &str) -> Option<&'static str> {
    let is_named = |names: &[&str]| names.iter().any(|name| user_agent.contains(name));
    families.iter().find(|(_, names)| is_named(names)).map(|(family, _)| *family)
}

/// Whether the user agent is not a browser's: it begins with another product than all browsers do (RFC 9110, 10.1.5),
/// or is a crawler's.
fn is_program(user_agent: &str) -> bool {
    let product = user_agent.split([' ', '/']).next().unwrap_or_default();
    let is_token = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte))
    };
    match product {
        "Mozilla" | "Opera" => {
            let user_agent = user_agent.to_ascii_lowercase();
            ["bot/", "bot;", "crawler", "spider"].iter().any(|word| user_agent.contains(word))
        }
        product => is_token(product) && user_agent.len() > product.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOWS: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko)";
    const ANDROID: &str = "Mozilla/5.0 (Linux; Android 14; K) AppleWebKit/537.36 (KHTML, like Gecko)";
    const IPHONE: &str =
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)";

    #[test]
    fn browsers_and_systems_of_today_are_named() {
        for (user_agent, words) in [
            ("Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0", "Firefox on Linux"),
            ("Mozilla/5.0 (Android 14; Mobile; rv:132.0) Gecko/132.0 Firefox/132.0", "Firefox on Android"),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Safari/605.1.15",
                "Safari on macOS",
            ),
            (
                "Mozilla/5.0 (iPad; CPU OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1",
                "Safari on iPad",
            ),
            (&format!("{IPHONE} Version/18.0 Mobile/15E148 Safari/604.1"), "Safari on iPhone"),
            (&format!("{IPHONE} CriOS/130.0.0.0 Mobile/15E148 Safari/604.1"), "Chrome on iPhone"),
            (&format!("{IPHONE} FxiOS/132.0 Mobile/15E148 Safari/605.1.15"), "Firefox on iPhone"),
            (&format!("{IPHONE} Mobile/15E148 Instagram 350.0.0.0 (iPhone15,2)"), "Instagram on iPhone"),
            (&format!("{WINDOWS} Chrome/130.0.0.0 Safari/537.36"), "Chrome on Windows"),
            (&format!("{WINDOWS} Chrome/130.0.0.0 Safari/537.36 Edg/130.0.0.0"), "Edge on Windows"),
            (&format!("{WINDOWS} Chrome/129.0.0.0 Safari/537.36 OPR/115.0.0.0"), "Opera on Windows"),
            (&format!("{WINDOWS} Chrome/128.0.0.0 Safari/537.36 Vivaldi/7.0"), "Vivaldi on Windows"),
            (
                "Mozilla/5.0 (Windows NT 10.0; WOW64; Trident/7.0; rv:11.0) like Gecko",
                "Internet Explorer on Windows",
            ),
            (&format!("{ANDROID} Chrome/130.0.0.0 Mobile Safari/537.36"), "Chrome on Android"),
            (
                &format!("{ANDROID} SamsungBrowser/26.0 Chrome/122.0.0.0 Mobile Safari/537.36"),
                "Samsung Internet on Android",
            ),
            (
                "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36",
                "Chrome on ChromeOS",
            ),
            (
                "Mozilla/5.0 (Linux; Tizen 7.0; SMART-TV) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/5.2 Chrome/94.0 TV Safari/537.36",
                "Samsung Internet on a television",
            ),
        ] {
            assert_eq!(describe(user_agent), words, "{user_agent}");
        }
    }

    #[test]
    fn programs_are_not_taken_for_browsers() {
        for (user_agent, words) in [
            ("curl/8.5.0", "A program"),
            ("python-requests/2.32.3", "A program"),
            ("Go-http-client/2.0", "A program"),
            ("Dalvik/2.1.0 (Linux; U; Android 14; Pixel 8)", "A program on Android"),
            ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "A program"),
        ] {
            assert_eq!(describe(user_agent), words, "{user_agent}");
        }
    }

    #[test]
    fn text_that_names_nothing_is_an_unknown_device() {
        for user_agent in ["", " ", "/", "<script>alert(1)</script>", "Mozilla/5.0", "\u{e9}/1", "curl"] {
            assert_eq!(describe(user_agent), "Unknown device", "{user_agent}");
        }
    }
}
