# A machine of workers has nothing that others would miss: its log is stored twice a minute.
wrap_up() {
    :
}

stop_work() {
    :
}
