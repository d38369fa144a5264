mod boot;
mod exit;
