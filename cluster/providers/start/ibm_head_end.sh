# A machine cannot remove itself here: it is stopped, and costs no more than its disk. Whoever has
# launched it, or `manage.py kill`, removes it.
wrap_up() {
    store_results
}
