# Where the Python packages are: the repository's .venv, or GPIPE_SITE_PACKAGES.
# Sets PythonSite_DIR.

file(GLOB _venv_site ${PROJECT_SOURCE_DIR}/.venv/lib/python3*/site-packages)
set(GPIPE_SITE_PACKAGES "${_venv_site}" CACHE PATH "site-packages with torch and the google.rpc protos")
set(PythonSite_DIR ${GPIPE_SITE_PACKAGES})
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(PythonSite REQUIRED_VARS PythonSite_DIR
  REASON_FAILURE_MESSAGE "run scripts/setup.sh, or set GPIPE_SITE_PACKAGES")
