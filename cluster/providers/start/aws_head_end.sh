# What ends with the head, beside the machine itself; each of it may be gone already.
wrap_up() {
    aws autoscaling delete-auto-scaling-group --auto-scaling-group-name "$GROUP" --force-delete || true
    aws ec2 delete-launch-template --launch-template-name "$GROUP" >/dev/null || true
    [ -z "$STORE_URL" ] || aws ssm delete-parameter --name "$STORE_URL" || true
    aws s3 rm "s3://$BUCKET/$BUNDLE" --only-show-errors || true
    store_results
}
