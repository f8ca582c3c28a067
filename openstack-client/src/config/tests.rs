//! What clouds.yaml and the `OS_*` variables may say, and what is said about what they may not.

use super::*;

const GOOD: &str = "
clouds:
  tandem:
    auth:
      auth_url: http://127.0.0.1:5000/
      username: admin
      password: from-clouds
      project_name: admin
    region_name: RegionOne
    identity_api_version: 3
";

/// A folder with a clouds.yaml, and the variables of a process.
struct Place {
    folder: tempfile::TempDir,
    variables: BTreeMap<String, String>,
}

impl Place {
    fn new(clouds: &str) -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a folder"), variables: BTreeMap::new() };
        place.write("clouds.yaml", clouds);
        place
    }

    fn variables(pairs: &[(&str, &str)]) -> Self {
        let variables = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Self { folder: tempfile::tempdir().expect("a folder"), variables }
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).expect("the folder is ours");
    }

    fn around(&self) -> Surroundings {
        Surroundings { variables: self.variables.clone(), folders: vec![self.folder.path().to_owned()] }
    }

    fn load(&self, cloud: Option<&str>) -> Result<CloudConfig, ConfigError> {
        CloudConfig::load(cloud, &self.around())
    }

    /// What is said about this place, its folder left out.
    fn told(&self, cloud: Option<&str>) -> String {
        let error = self.load(cloud).expect_err("something is wrong here");
        error
            .to_string()
            .replace(&format!("{}/", self.folder.path().display()), "")
            .replace(&self.folder.path().display().to_string(), "FOLDER")
    }
}

fn told(clouds: &str) -> String {
    Place::new(clouds).told(Some("tandem"))
}

fn password(config: &CloudConfig) -> &str {
    match &config.credentials {
        Credentials::Password { password, .. } => password.reveal(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cloud_is_read_with_openstacks_defaults() {
    let config = Place::new(GOOD).load(Some("tandem")).expect("it is good");
    assert_eq!(config.auth_url.as_str(), "http://127.0.0.1:5000/v3");
    assert_eq!(config.region.as_deref(), Some("RegionOne"));
    assert_eq!((config.interface, config.verify, &config.cacert), (Interface::Public, true, &None));
    assert_eq!(
        config.credentials.to_string(),
        "the password of user admin (domain default) for project admin (domain default)"
    );
}

#[test]
fn secure_yaml_has_the_last_word_on_secrets() {
    let place = Place::new(GOOD);
    place.write("secure.yaml", "clouds: {tandem: {auth: {password: from-secure}}, other: {}}");
    assert_eq!(password(&place.load(Some("tandem")).expect("it is good")), "from-secure");
}

#[test]
fn the_only_cloud_needs_no_name_and_os_cloud_names_one_of_several() {
    assert!(Place::new(GOOD).load(None).is_ok());
    let mut several = Place::new(&format!("{GOOD}\n  other: {{}}\n"));
    assert_eq!(several.told(None), "clouds.yaml has several clouds (other, tandem); choose one with OS_CLOUD");
    several.variables.insert("OS_CLOUD".to_owned(), "tandem".to_owned());
    assert!(several.load(None).is_ok());
}

#[test]
fn variables_describe_a_cloud_alone() {
    let place = Place::variables(&[
        ("OS_AUTH_URL", "https://keystone:5000/v3"),
        ("OS_USERNAME", "admin"),
        ("OS_PASSWORD", "secret"),
        ("OS_PROJECT_ID", "p1"),
        ("OS_USER_DOMAIN_NAME", "Default"),
        ("OS_INTERFACE", "internal"),
        ("OS_CACERT", "/etc/ca.pem"),
        ("OS_INSECURE", "true"),
    ]);
    let config = place.load(None).expect("it is good");
    assert_eq!(config.credentials.to_string(), "the password of user admin (domain Default) for project p1");
    assert_eq!(
        (config.interface, config.verify, config.cacert),
        (Interface::Internal, false, Some(PathBuf::from("/etc/ca.pem")))
    );
}

#[test]
fn application_credentials_are_read_by_id_and_by_name() {
    let by = |keys: &str| {
        let text = format!(
            "clouds: {{tandem: {{auth_type: v3applicationcredential, auth: {{auth_url: 'http://k/v3', application_credential_secret: s, {keys}}}}}}}"
        );
        Place::new(&text).load(None).expect("it is good").credentials.to_string()
    };
    assert_eq!(by("application_credential_id: a1"), "the application credential a1");
    assert_eq!(
        by("application_credential_name: tandem, username: admin"),
        "the application credential tandem of user admin (domain default)"
    );
}

#[test]
fn a_wrong_key_is_named_with_the_right_one() {
    assert_eq!(
        told(&GOOD.replace("region_name", "regoin_name")),
        "cloud tandem of clouds.yaml has an unknown key regoin_name; did you mean region_name?"
    );
    assert_eq!(
        told(&GOOD.replace("username", "user_name")),
        "cloud tandem of clouds.yaml has an unknown key user_name; did you mean username?"
    );
    assert_eq!(
        told(&GOOD.replace("region_name", "colour")),
        "cloud tandem of clouds.yaml has an unknown key colour; remove it"
    );
}

#[test]
fn a_key_in_the_wrong_place_is_sent_to_the_right_one() {
    let beside = GOOD.replace("    region_name", "    password: x\n    region_name");
    assert_eq!(told(&beside), "cloud tandem of clouds.yaml: password belongs below `auth:`; move it there");
    let below = GOOD.replace("      project_name", "      cacert: x\n      project_name");
    assert_eq!(told(&below), "cloud tandem of clouds.yaml: cacert belongs beside `auth:`, not below it; move it");
}

#[test]
fn what_would_change_our_calls_and_is_not_supported_is_refused() {
    assert_eq!(
        told(&GOOD.replace("identity_api_version: 3", "profile: vexxhost")),
        "cloud tandem of clouds.yaml: profile is not supported; write the values of the profile into the cloud"
    );
    assert_eq!(
        told(&GOOD.replace("identity_api_version: 3", "auth_type: v3totp")),
        "cloud tandem of clouds.yaml: auth_type v3totp is not supported; use password, v3applicationcredential or v3token"
    );
}

#[test]
fn an_unknown_cloud_is_told_with_those_that_there_are() {
    assert_eq!(
        Place::new(GOOD).told(Some("tandm")),
        "clouds.yaml has no cloud tandm, it has tandem; did you mean tandem?"
    );
}

#[test]
fn no_file_and_no_variables_is_told_with_every_way_out() {
    assert_eq!(
        Place::variables(&[]).told(None),
        "no cloud is named and there is no clouds.yaml in FOLDER; write one, name it with OS_CLIENT_CONFIG_FILE, or set OS_AUTH_URL and the other OS_* \
         variables"
    );
}

#[test]
fn what_is_missing_is_told() {
    assert_eq!(
        told(&GOOD.replace("      password: from-clouds\n", "")),
        "cloud tandem of clouds.yaml lacks password (put it into secure.yaml)"
    );
    assert_eq!(
        told(&GOOD.replace("      project_name: admin\n", "")),
        "cloud tandem of clouds.yaml lacks project_name (or project_id: Nova's calls need a project)"
    );
}

#[test]
fn a_value_that_yaml_has_bent_is_to_be_quoted() {
    assert_eq!(
        told(&GOOD.replace("from-clouds", "1e3")),
        "cloud tandem of clouds.yaml: password is not text; put its value in quotes"
    );
}

#[test]
fn a_wrong_auth_url_is_told() {
    let url = |text: &str| told(&GOOD.replace("http://127.0.0.1:5000/", text));
    assert_eq!(
        url("keystone"),
        "cloud tandem of clouds.yaml: auth_url keystone is not a URL; write it as https://keystone.example.org:5000/v3"
    );
    assert!(
        url("http://k:5000/v2.0").ends_with("names Keystone's v2.0 API, which no longer exists; let it end in /v3")
    );
    assert_eq!(
        url("http://admin:secret@k/v3"),
        "cloud tandem of clouds.yaml: auth_url holds a user or password; write them as username and password"
    );
}

#[test]
fn neither_debug_nor_a_message_shows_a_secret() {
    let place = Place::variables(&[
        ("OS_AUTH_URL", "http://k/v3"),
        ("OS_USERNAME", "admin"),
        ("OS_PASSWORD", "geheim"),
        ("OS_PROJECT_NAME", "admin"),
    ]);
    let config = place.load(None).expect("it is good");
    assert!(format!("{config:?}").contains("***"));
    for text in [format!("{config:?}"), format!("{:?}", place.around())] {
        assert!(!text.contains("geheim"), "{text}");
    }
}

#[test]
fn what_is_not_yaml_is_told_with_the_place_and_without_the_secret() {
    let place = Place::new("clouds:\n  tandem:\n    auth: {password: geheim\n  x: [");
    let error = place.load(None).expect_err("it is not YAML");
    let text = crate::error::chain(&error);
    assert!(text.contains("clouds.yaml is not YAML") && text.contains("line") && !text.contains("geheim"), "{text}");
}

#[test]
fn a_yaml_merge_is_merged() {
    let merged = GOOD
        .replace("clouds:", "shared: &shared\n  interface: internal\nclouds:")
        .replace("  tandem:", "  tandem:\n    <<: *shared");
    let config = Place::new(&merged).load(None).expect("openstacksdk reads it too");
    assert_eq!(config.interface, Interface::Internal);
}

#[test]
fn an_address_without_scheme_shows_no_password() {
    let error = told(&GOOD.replace("http://127.0.0.1:5000/", "admin:geheim@keystone/v3"));
    assert!(error.contains("auth_url holds a user or password") && !error.contains("geheim"), "{error}");
}
