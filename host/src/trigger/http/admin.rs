//! Who may change which versions of stages run, and how they do it.
//!
//! Whoever shows the token that the host was started with may. Without one the host has no such interface.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Json,
    body::{Bytes, HttpBody as _},
    extract::{FromRequest as _, Path, Request, State},
    http::{HeaderMap, StatusCode, header},
};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use tapeline_invoke::{AdminToken, TOKEN_BYTES_MIN};
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use super::{
    Api,
    admit::Parameters,
    problem::{Problem, What, chain},
};
use crate::{
    error::{Error, Kind, Result},
    pipeline::{Push, Pushed, Rollout, StageStatus, now_ns},
    registry::{Change, ShadowRule, Way},
    runtime::COMPONENT_BYTES_MAX,
    store::{SqliteStore, Store as _},
};

/// The variable that the token is read from.
pub const TOKEN_VARIABLE: &str = "TAPELINE_ADMIN_TOKEN";
/// Uploads that may be under way: each is in memory, and compiling one takes all processors.
const UPLOADS_MAX: usize = 2;
/// How long an upload may take to come, or waits for its turn: 64 MiB in it are 5 Mbit/s.
const UPLOAD_TIME_MAX: Duration = Duration::from_secs(120);
/// Letters of a name or a reason.
const TEXT_CHARS_MAX: usize = 1_000;
/// Bytes of settings: they are kept with each version.
const SETTINGS_BYTES_MAX: usize = 2 << 10;
/// Header: who it is, for the log.
const USER: &str = "tapeline-user";
/// Header: a signature of minisign over the component, percent-encoded.
const SIGNATURE: &str = "tapeline-signature";

/// Who may administer, and what.
pub struct Admin {
    /// What they show.
    pub token: AdminToken,
    /// What they change.
    pub rollout: Rollout,
}

/// Room for uploads.
pub(super) struct UploadRoom(Semaphore);

impl Default for UploadRoom {
    fn default() -> Self {
        Self(Semaphore::new(UPLOADS_MAX))
    }
}

/// The token that this process was started with; `None` when it was started without one.
///
/// # Errors
/// `Invalid` when it is shorter than 16 letters: one that is empty or easy to guess is none.
pub fn token_of_environment() -> Result<Option<AdminToken>> {
    let unfit = |found: String| {
        Error::invalid(format!(
            "use the token of {TOKEN_VARIABLE}: it {found}, instead of {TOKEN_BYTES_MIN} or more letters and digits; leave it unset for no administration"
        ))
    };
    match std::env::var(TOKEN_VARIABLE) {
        Ok(text) => AdminToken::new(&text).map(Some).map_err(unfit),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(unfit("is not text".to_owned())),
    }
}

impl Api {
    /// The administration, for whoever shows the token.
    pub(super) fn admin(&self, headers: &HeaderMap) -> Result<&Admin, Problem> {
        let Some(admin) = &self.admin else {
            let detail =
                format!("this host was started without {TOKEN_VARIABLE}, so that nobody can administer it by HTTP");
            return Err(Problem::new(What::AdminOff, detail));
        };
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        match admin.token.check(shown) {
            Ok(()) => Ok(admin),
            Err(what) => {
                let detail = format!("{what}; send `Authorization: Bearer <{TOKEN_VARIABLE}>`");
                Err(Problem::new(What::Unauthorized, detail))
            }
        }
    }

    fn rollout(&self) -> Result<&Rollout, Problem> {
        self.rollout.as_ref().ok_or_else(|| Problem::new(What::Unavailable, "this host has no versions of stages"))
    }
}

/// How a component is brought in.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PushQuestion {
    mode: Option<Mode>,
    promote_after: Option<u64>,
    differences_max: Option<u64>,
    settings: Option<String>,
    memory_mib: Option<u64>,
    time_per_batch: Option<String>,
    why: Option<String>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Swap,
    Shadow,
}

impl PushQuestion {
    fn into_push(self, headers: &HeaderMap) -> Result<Push, Problem> {
        let wrong = |detail: String| Problem::new(What::BadParameter, detail);
        let is_shadow = self.mode == Some(Mode::Shadow);
        if !is_shadow && (self.promote_after.is_some() || self.differences_max.is_some()) {
            return Err(wrong("promote_after and differences_max: only with mode=shadow".to_owned()));
        }
        // What goes live by rule is the same, unless somebody says how much it may differ.
        let usual = if self.promote_after.is_some() { 0 } else { u64::MAX };
        let rule =
            ShadowRule { promote_after: self.promote_after, differences_max: self.differences_max.unwrap_or(usual) };
        if let Some(settings) = &self.settings
            && serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(settings).is_err()
        {
            return Err(wrong(format!("settings: {settings:?} instead of a JSON object")));
        }
        if self.settings.as_ref().is_some_and(|settings| settings.len() > SETTINGS_BYTES_MAX) {
            return Err(wrong(format!(
                "settings: at most {SETTINGS_BYTES_MAX} bytes; larger ones belong into the pipeline file"
            )));
        }
        if let Some(mib) = self.memory_mib.filter(|mib| !(1..=4096).contains(mib)) {
            return Err(wrong(format!("memory_mib: {mib} instead of 1 to 4096")));
        }
        let batch_ms = self.time_per_batch.map(|text| match humantime::parse_duration(&text) {
            Ok(time) if (10..=3_600_000).contains(&time.as_millis()) => Ok(time.as_millis() as u64),
            _ => Err(wrong(format!("time_per_batch: {text:?} instead of a duration from \"10ms\" to \"1h\""))),
        });
        Ok(Push {
            way: if is_shadow { Way::Shadow(rule) } else { Way::Swap },
            settings: self.settings,
            memory_mib: self.memory_mib,
            batch_ms: batch_ms.transpose()?,
            signature: header_text(headers, SIGNATURE)?,
            by: user(headers)?,
            why: text("why", self.why.unwrap_or_default())?,
        })
    }
}

fn user(headers: &HeaderMap) -> Result<String, Problem> {
    text(USER, header_text(headers, USER)?.unwrap_or_else(|| "http".to_owned()))
}

fn text(name: &str, text: String) -> Result<String, Problem> {
    let is_fit = text.chars().count() <= TEXT_CHARS_MAX && !text.chars().any(char::is_control);
    let wrong = || format!("{name}: at most {TEXT_CHARS_MAX} characters, without control characters");
    if is_fit { Ok(text) } else { Err(Problem::new(What::BadParameter, wrong())) }
}

/// A header whose text may be percent-encoded.
fn header_text(headers: &HeaderMap, name: &str) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = value.to_str().ok().and_then(|text| percent_decode_str(text).decode_utf8().ok());
    let text = text.ok_or_else(|| Problem::new(What::BadParameter, format!("{name}: not UTF-8, percent-encoded")));
    text.map(|text| Some(text.into_owned()))
}

pub(super) async fn push(
    State(api): State<Arc<Api>>,
    Path(stage): Path<String>,
    Parameters(question): Parameters<PushQuestion>,
    request: Request,
) -> Result<(StatusCode, Json<Pushed>), Problem> {
    let rollout = api.admin(request.headers())?.rollout.clone();
    let push = question.into_push(request.headers())?;
    if !rollout.stages().contains(&stage) {
        return Err(unknown_stage(&rollout, &stage));
    }
    let too_large = || Problem::new(What::BodyTooLarge, format!("a component may have {COMPONENT_BYTES_MAX} bytes"));
    if request.body().size_hint().lower() > COMPONENT_BYTES_MAX {
        return Err(too_large());
    }
    let busy = || Problem::new(What::Busy, format!("{UPLOADS_MAX} other components are being looked at"));
    let turn = timeout(UPLOAD_TIME_MAX, api.upload_room.0.acquire()).await.map_err(|_| busy())?.map_err(|_| busy())?;
    let slow = || Problem::new(What::SlowBody, format!("the component was not there after {UPLOAD_TIME_MAX:?}"));
    let bytes = timeout(UPLOAD_TIME_MAX, Bytes::from_request(request, &())).await.map_err(|_| slow())?;
    let bytes = bytes.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        _ => Problem::new(What::BadBody, error.body_text()),
    })?;
    let pushed = blocking(move || rollout.push(&stage, &bytes, &push)).await?;
    drop(turn);
    Ok((StatusCode::CREATED, Json(pushed)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeQuestion {
    version: Option<String>,
    why: Option<String>,
}

impl ChangeQuestion {
    fn into_change(self, headers: &HeaderMap) -> Result<(Option<String>, Change), Problem> {
        let (by, why) = (user(headers)?, text("why", self.why.unwrap_or_default())?);
        Ok((self.version, Change { at: now_ns(), by, why }))
    }
}

pub(super) async fn approve(
    State(api): State<Arc<Api>>,
    Path(stage): Path<String>,
    Parameters(question): Parameters<ChangeQuestion>,
    headers: HeaderMap,
) -> Result<Json<Pushed>, Problem> {
    let rollout = api.admin(&headers)?.rollout.clone();
    let (version, change) = question.into_change(&headers)?;
    let missing = || Problem::new(What::BadParameter, "version: which one is approved, such as version=3");
    let version = version.ok_or_else(missing)?;
    blocking(move || rollout.approve(&stage, &version, &change)).await.map(Json)
}

pub(super) async fn promote(
    State(api): State<Arc<Api>>,
    Path(stage): Path<String>,
    Parameters(question): Parameters<ChangeQuestion>,
    headers: HeaderMap,
) -> Result<Json<Pushed>, Problem> {
    let rollout = api.admin(&headers)?.rollout.clone();
    let (_, change) = question.into_change(&headers)?;
    blocking(move || rollout.promote(&stage, &change)).await.map(Json)
}

/// Which versions are gone.
#[derive(Serialize)]
pub(super) struct Gone {
    versions: Vec<u64>,
}

pub(super) async fn discard(
    State(api): State<Arc<Api>>,
    Path(stage): Path<String>,
    Parameters(question): Parameters<ChangeQuestion>,
    headers: HeaderMap,
) -> Result<Json<Gone>, Problem> {
    let rollout = api.admin(&headers)?.rollout.clone();
    let (_, change) = question.into_change(&headers)?;
    blocking(move || rollout.discard(&stage, &change).map(|version| Gone { versions: vec![version] })).await.map(Json)
}

pub(super) async fn roll_back(
    State(api): State<Arc<Api>>,
    Path(stage): Path<String>,
    Parameters(question): Parameters<ChangeQuestion>,
    headers: HeaderMap,
) -> Result<Json<Pushed>, Problem> {
    let rollout = api.admin(&headers)?.rollout.clone();
    let (version, change) = question.into_change(&headers)?;
    blocking(move || rollout.roll_back(&stage, version.as_deref(), &change)).await.map(Json)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PruneQuestion {
    keep: usize,
}

pub(super) async fn prune(
    State(api): State<Arc<Api>>,
    Path(stage): Path<String>,
    Parameters(PruneQuestion { keep }): Parameters<PruneQuestion>,
    headers: HeaderMap,
) -> Result<Json<Gone>, Problem> {
    let rollout = api.admin(&headers)?.rollout.clone();
    let (_, change) = ChangeQuestion { version: None, why: None }.into_change(&headers)?;
    blocking(move || rollout.prune(&stage, keep, &change).map(|versions| Gone { versions })).await.map(Json)
}

/// A stage in a list.
#[derive(Serialize)]
pub(super) struct StageLine {
    stage: String,
    version: u64,
    digest: String,
    name: String,
    semver: String,
    state_version: u32,
    by: String,
    at: i64,
    on_probation: bool,
    candidate: Option<u64>,
    pending: Vec<u64>,
}

pub(super) async fn list(State(api): State<Arc<Api>>) -> Result<Json<Vec<StageLine>>, Problem> {
    let rollout = api.rollout()?.clone();
    let _turn = api.reader.turn().await?;
    let lines = move || {
        let status = rollout.stages().into_iter().map(|stage| rollout.status(&stage));
        Ok(status.collect::<Result<Vec<_>>>()?.into_iter().filter_map(line).collect())
    };
    blocking(lines).await.map(Json)
}

fn line(StageStatus { stage, deployment, .. }: StageStatus) -> Option<StageLine> {
    let live = deployment.live_version()?.clone();
    Some(StageLine {
        stage,
        version: live.number,
        digest: live.digest,
        name: live.name,
        semver: live.semver,
        state_version: live.state_version,
        by: live.by,
        at: live.at,
        on_probation: deployment.before.is_some(),
        candidate: deployment.shadow.map(|(version, _)| version),
        pending: deployment.pending.iter().map(|pending| pending.version).collect(),
    })
}

pub(super) async fn show(State(api): State<Arc<Api>>, Path(stage): Path<String>) -> Result<Json<StageStatus>, Problem> {
    let rollout = api.rollout()?.clone();
    let _turn = api.reader.turn().await?;
    blocking(move || rollout.status(&stage)).await.map(Json)
}

/// Which dead letters are put back.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RedriveQuestion {
    ids: String,
}

pub(super) async fn redrive(
    State(api): State<Arc<Api>>,
    Parameters(RedriveQuestion { ids }): Parameters<RedriveQuestion>,
    headers: HeaderMap,
) -> Result<Json<BTreeMap<&'static str, u64>>, Problem> {
    api.admin(&headers)?;
    let wrong = |text: &str| {
        Problem::new(What::BadParameter, format!("ids: {text:?} instead of numbers of dead letters, with commas"))
    };
    let ids: Vec<u64> =
        ids.split(',').map(|id| id.trim().parse().map_err(|_| wrong(id))).collect::<Result<_, Problem>>()?;
    let folder = api.folder.clone();
    let put = blocking(move || SqliteStore::open_second(&folder)?.redrive(&ids)).await?;
    Ok(Json(BTreeMap::from([("redriven", put)])))
}

fn unknown_stage(rollout: &Rollout, stage: &str) -> Problem {
    let known = rollout.stages().join(", ");
    Problem::new(What::UnknownStage, format!("stage {stage:?} is none of {known}"))
}

/// Does what may wait on a thread that may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T, Problem> {
    let done = spawn_blocking(work).await;
    let done = done.map_err(|_| Problem::new(What::Internal, "the work was not finished"))?;
    done.map_err(|error| {
        let what = match error.kind() {
            Kind::NotFound => What::UnknownVersion,
            Kind::Invalid => What::ComponentRefused,
            Kind::Conflict => What::NotNow,
            Kind::Unavailable => What::Unavailable,
            Kind::Corrupt | Kind::Internal => What::Internal,
        };
        Problem::new(what, format!("failed to {}", chain(&error)))
    })
}
